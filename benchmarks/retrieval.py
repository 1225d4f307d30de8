"""The service under load, whole: ``dat bench retrieval --json retrieval.json`` starts all that it needs.

A trained model scaled up to a million items (without ``--home`` it is trained first, on MovieLens-100K); Redis as
online store; a real broker, the updater folding clicks all the while; the service and the load generator as processes
of their own. Two kinds of load: a steady rate, each request timed from the moment that it was due (``p50_ms``,
``p99_ms``), and, with ``wrk`` on the PATH, as many requests as the service takes from 16 connections
(``requests_per_s``). The floor: what one Redis read, one pass of the tower and one bare Faiss search cost by
themselves, before anything else runs.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before Faiss: threads that spin take the cores from others

import numpy as np  # noqa: E402
import typer

from benchmarks._bundles import scaled_bundle, trained_bundle
from training.bundle import Bundle, Shelf

WRK = """
local ids = {}
for line in io.lines("%s") do ids[#ids + 1] = line end
function request() return wrk.format("GET", "/v1/retrieve?n=%d&query_id=" .. ids[math.random(#ids)]) end
"""


def main(
    items: Annotated[int, typer.Option(min=2_000, help="Items in the corpus.")] = 1_000_000,
    queries: Annotated[int, typer.Option(min=1_000, help="Queries that the bundle and Redis know.")] = 20_000,
    rate: Annotated[float, typer.Option(min=1, help="Requests a second.")] = 200,
    seconds: Annotated[float, typer.Option(min=1, help="For how long.")] = 20,
    clicks: Annotated[float, typer.Option(min=0, help="Clicks a second that the updater folds meanwhile.")] = 50,
    n: Annotated[int, typer.Option(min=1, max=1000, help="Items in an answer.")] = 100,
    home: Annotated[
        Path | None, typer.Option(help="A home whose bundle in service is scaled up, of any dataset of ours.")
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures to this file.")] = None,
) -> None:
    """Latency and throughput over HTTP, the share of each step, and the bare parts, in one run."""
    import httpx

    from cli.broker import LocalBroker
    from cli.preflight import quiet
    from cli.processes import Verb
    from cli.redis import LocalRedis
    from streaming.clients import create_topics

    quiet()
    report = {"items": items, "queries": queries, "rate": rate, "clicks_per_s": clicks, "cores": os.cpu_count()}
    bundle = Shelf(home / "bundles").load() if home else trained_bundle(Path(".dat/downloads"))
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dat-bench-")))
        say("the trained model is scaled up")
        redis = stack.enter_context(LocalRedis(home / "redis"))
        cut = make_home(home, redis.address, scaled_bundle(bundle, queries, items))
        ids = (home / "ids.txt").read_text().splitlines()
        say("the parts by themselves")
        report["bare_ms"] = bare_parts(home, redis.port, n)
        say("the broker, the updater and the service start")
        broker = stack.enter_context(LocalBroker(home / "kafka"))
        create_topics(broker.bootstrap)
        options = ["--home", str(home), "--bootstrap", broker.bootstrap, "--redis", redis.address]
        updater = stack.enter_context(Verb(["updater", *options], home / "updater.log", "updating"))
        serve = stack.enter_context(Verb(["serve", *options, "--port", "0"], home / "serve.log", "serving"))
        updater.wait_ready(600)
        url = next(word for word in serve.wait_ready(900).split() if word.startswith("http://"))
        while httpx.get(f"{url}/readyz").is_error:
            serve.check()
            time.sleep(0.1)
        stack.enter_context(Clicks(broker.bootstrap, clicks, ids, cut))
        say(f"{rate:g} requests a second for {seconds:g} s")
        before = httpx.get(f"{url}/v1/status").json()
        command = [sys.executable, "-m", "benchmarks._load", url, str(home / "ids.txt")]
        options = ["--rate", str(rate), "--seconds", str(seconds), "--n", str(n)]
        load = json.loads(subprocess.run([*command, *options], check=True, capture_output=True, text=True).stdout)
        after = httpx.get(f"{url}/v1/status").json()
        report |= summary(load, before, after, report["bare_ms"])
        report["requests_per_s"] = capacity(url, home, n)
    print(json.dumps(report, indent=2))
    if json_file:
        json_file.write_text(json.dumps(report, indent=2))


def say(what: str) -> None:
    print(f"· {what}", file=sys.stderr, flush=True)


def make_home(home: Path, redis: str, bundle: Bundle) -> int:
    """Publish a bundle, and write what the stream and the catalogue would have into Redis; its cut."""
    import pandas as pd
    import pyarrow as pa

    from cli.settings import Settings
    from feature_repo.store import open_store, register
    from streaming.online_writer import OnlineWriter
    from streaming.topics import QUERY_STATE

    card = Settings(dataset=bundle.manifest.dataset).card
    Shelf(home / "bundles").publish(bundle)
    (home / "ids.txt").write_text("\n".join(bundle.queries.ids))
    store, table = open_store(home, redis), bundle.queries
    register(store, card, home)
    writer, names = OnlineWriter(store, bundle.version), np.array(bundle.items.ids, object)
    for at in range(0, len(table.ids), 1_024):
        part = slice(at, at + 1_024)
        history = [names[row[row >= 0]].tolist() for row in table.history[part]]
        columns = {"id": table.ids[part], "a": list(table.a[part].reshape(len(history), -1)), "history": history}
        columns |= {name: list(getattr(table, name)[part]) for name in ("folded", "clicks", "counters", "last_click")}
        arrays = [pa.array(columns[field.name], field.type) for field in QUERY_STATE]
        writer.write("query", pa.RecordBatch.from_arrays(arrays, schema=QUERY_STATE))
    view = store.get_feature_view("query_profile")
    columns = {
        "query_id": table.ids,
        "event_timestamp": pd.Timestamp.now("UTC"),
        "created_timestamp": pd.Timestamp.now("UTC"),
    }
    for field in view.features:
        columns[field.name] = profile_column(bundle, field.name, len(table.ids))
    store.write_to_online_store("query_profile", pd.DataFrame(columns))
    return bundle.manifest.cut_ms


def profile_column(bundle, name: str, size: int) -> list:
    """The values that a query's profile was encoded from."""
    spec, table, at = bundle.manifest.query, bundle.queries, 0
    for field in spec.categories:
        if field.name == name:
            values = [None, *field.values]
            return [values[max(0, code - field.offset)] for code in table.codes[:, at].tolist()]
        at += field.slots
    for k, field in enumerate(spec.numbers):
        if field.name == name:
            return (table.numbers[:, k] * field.std + field.mean).tolist()
    return [1 if name == "known" else None] * size


def bare_parts(home: Path, redis_port: int, n: int) -> dict[str, dict[str, float]]:
    """One Redis read of a query's whole hash, one pass of the tower, one search of the Faiss lists; on one thread."""
    import faiss
    import redis
    import torch

    from serving.config import ServingConfig
    from serving.served import Served

    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    served = Served.of(Shelf(home / "bundles").load(), ServingConfig())
    client = redis.Redis(port=redis_port)
    keys = [key for _, key in zip(range(500), client.scan_iter(), strict=False)]
    states = [served.queries.states([id_], None, served.corpus) for id_ in served.queries.ids[:500]]
    as_of = np.array([served.bundle.manifest.cut_ms])
    vectors = [served.queries.represent(state, as_of) for state in states]
    search = served.corpus.index.lists or faiss.IndexFlatIP(served.corpus.index.dimension)
    if search.ntotal == 0:
        search.add(served.bundle.items.vectors)
    parts = {
        "redis": lambda k: client.hgetall(keys[k % len(keys)]),
        "tower": lambda k: served.queries.represent(states[k % 500], as_of),
        "search": lambda k: search.search(vectors[k % 500], n),
    }
    return {name: timed(part) for name, part in parts.items()}


def timed(part, times: int = 2_000) -> dict[str, float]:
    took = []
    for k in range(times):
        began = time.perf_counter()
        part(k)
        took.append((time.perf_counter() - began) * 1000)
    return {f"p{at}": round(float(np.percentile(took, at)), 4) for at in (50, 99)}


class Clicks:
    """Writes clicks to the stream at a steady rate."""

    def __init__(self, bootstrap: str, per_second: float, ids: list[str], cut_ms: int):
        self._args = bootstrap, per_second, ids, cut_ms
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Clicks":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        from feature_repo.click_event import Click
        from streaming.clicks import ClickWriter

        bootstrap, per_second, ids, cut_ms = self._args
        writer, rng, began, sent = ClickWriter(bootstrap, linger_ms=20), np.random.default_rng(0), time.monotonic(), 0
        while per_second and not self._stop.wait(0.05):
            while sent < (time.monotonic() - began) * per_second:
                query, item = ids[rng.integers(len(ids))], str(rng.integers(1, 1_600))
                writer.send(Click(event_id=f"load-{sent}", query_id=query, item_id=item, event_time=cut_ms + sent))
                sent += 1
        writer.close()


def summary(load: dict, before: dict, after: dict, bare: dict) -> dict:
    """The load's figures, the mean ms of each step, and how they compare with the bare parts."""
    answered = after["load"]["answered"] - before["load"]["answered"]
    spent = {step: 1000 * (after["seconds"][step] - before["seconds"][step]) / answered for step in after["seconds"]}
    mean = load["mean_ms"]
    steps = {"http": mean - load["waited_ms"] - load["took_ms"], "turn": load["waited_ms"], **spent}
    floor = {at: sum(part[at] for part in bare.values()) for at in ("p50", "p99")}
    return {
        **load,
        "index": after["index"]["kind"],
        "vectors_updated": after["index"]["updates"] - before["index"]["updates"],
        "mean_ms_by_step": {step: round(value, 3) for step, value in steps.items()},
        "bare_sum_ms": {at: round(value, 3) for at, value in floor.items()},
        "p50_by_bare": round(load["p50_ms"] / floor["p50"], 2),
        "p99_by_bare": round(load["p99_ms"] / floor["p99"], 2),
    }


def capacity(url: str, home: Path, n: int) -> float | None:
    """Requests a second from 16 connections, each asking again once answered; None without ``wrk``."""
    if not shutil.which("wrk"):
        return None
    say("as many requests as it takes")
    script = home / "ask.lua"
    script.write_text(WRK % (home / "ids.txt", n))
    command = ["wrk", "-t1", "-c16", "-d10s", "-s", str(script), url]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return float(next(line for line in said.splitlines() if line.startswith("Requests/sec:")).split()[1])


if __name__ == "__main__":
    typer.run(main)
