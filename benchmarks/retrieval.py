"""The service under load, whole: ``dat bench retrieval --json retrieval.json`` starts all that it needs.

A trained model scaled up to a million items (without ``--home`` it is trained first, on MovieLens-100K); Redis as
online store; a real broker, the updater folding clicks all the while; the service and the load generator as processes
of their own. A tenth of the questions come from visitors whom nobody knows, a fifth have a category. Two kinds of load:
a steady rate, each request timed from the moment that it was due (``p50_ms``, ``p99_ms``, ``unknown_p50_ms``), and as
many requests as the service takes from 16 connections (``requests_per_s``). ``requests_per_cpu_s``: requests a second
of CPU that the service's processes took during the steady load.

``floor_p50_ms``: the same steady rate of known, unfiltered questions against ``benchmarks/_floor.py``, in the same
minutes: one sequence over a socket of HTTP parsing, one Redis read, the tower and a bare Faiss search.
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from dataclasses import fields
from pathlib import Path
from typing import Annotated

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before Faiss: threads that spin take the cores from others

import numpy as np  # noqa: E402
import typer

from benchmarks._bundles import scaled_bundle, trained_bundle
from cli.evidence import write_evidence
from cli.options import Json
from model.bundle import Bundle
from model.bundle_store import BundleStore


def main(
    items: Annotated[int, typer.Option(min=20_000, help="Items in the corpus.")] = 1_000_000,
    queries: Annotated[int, typer.Option(min=1_000, help="Queries that the bundle and Redis know.")] = 20_000,
    rate: Annotated[float, typer.Option(min=1, help="Requests a second.")] = 200,
    seconds: Annotated[float, typer.Option(min=1, help="For how long.")] = 20,
    clicks: Annotated[float, typer.Option(min=0, help="Clicks a second that the updater folds meanwhile.")] = 50,
    n: Annotated[int, typer.Option(min=1, max=1000, help="Items in an answer.")] = 100,
    unknown: Annotated[float, typer.Option(min=0, max=1, help="Share of visitors whom nobody knows.")] = 0.1,
    filtered: Annotated[float, typer.Option(min=0, max=1, help="Share of questions with a category.")] = 0.2,
    workers: Annotated[int, typer.Option(min=1, help="Processes of the service.")] = 1,
    home: Annotated[
        Path | None, typer.Option(help="A home whose bundle in service is scaled up, of any dataset of ours.")
    ] = None,
    json_file: Json = None,
) -> None:
    """Latency and throughput over HTTP beside the floor, and the CPU and memory of the service, in one run."""
    import httpx

    from devstack.broker import LocalBroker
    from devstack.processes import Verb
    from devstack.redis import LocalRedis
    from streaming.kafka.topics import create_topics

    report: dict = {"items": items, "queries": queries, "rate": rate, "clicks_per_s": clicks, "cores": os.cpu_count()}
    report |= {"unknown": unknown, "filtered": filtered, "workers": workers}
    bundle = BundleStore(home / "bundles").load() if home else trained_bundle(Path(".dat/downloads"))
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dat-bench-")))
        say("the trained model is scaled up")
        redis = stack.enter_context(LocalRedis(home / "redis"))
        cut = make_home(home, redis.address, scaled_bundle(bundle, queries, items))
        ids = (home / "ids.txt").read_text().splitlines()
        say("the broker, the updater, the service and the floor start")
        broker = stack.enter_context(LocalBroker(home / "kafka"))
        create_topics(broker.bootstrap)
        options = ["--home", str(home), "--bootstrap", broker.bootstrap, "--redis", redis.address]
        updater = stack.enter_context(Verb(["updater", *options], home / "updater.log", "updating"))
        command = ["serve", *options, "--port", "0", "--workers", str(workers)]
        serve = stack.enter_context(Verb(command, home / "serve.log", "serving"))
        floor = stack.enter_context(Floor(home, redis.address))
        updater.wait_ready(900)
        url = next(word for word in serve.wait_ready(900).split() if word.startswith("http://"))
        while httpx.get(f"{url}/readyz").is_error:
            serve.check()
            time.sleep(0.1)
        categories = list(httpx.get(f"{url}/v1/categories").json())
        stack.enter_context(Clicks(broker.bootstrap, clicks, ids, cut))
        mixed = ["--unknown", str(unknown), "--filtered", str(filtered), "--categories", ",".join(categories)]
        steady = ["--rate", str(rate), "--n", str(n)]
        say(f"{rate:g} requests a second: the floor, {seconds:g} s of the service, the floor")
        floors = [load(floor.url, home, [*steady, "--seconds", str(seconds / 2)])]
        before, spent = httpx.get(f"{url}/v1/status").json(), cpu_seconds(serve.process.pid)
        told = load(url, home, [*steady, *mixed, "--seconds", str(seconds)])
        spent = cpu_seconds(serve.process.pid) - spent
        after = httpx.get(f"{url}/v1/status").json()
        floors.append(load(floor.url, home, [*steady, "--seconds", str(seconds / 2)]))
        floor_p50 = float(np.mean([one["p50_ms"] for one in floors]))
        report |= summary(told, before, after)
        report |= {
            "floor_p50_ms": round(floor_p50, 3),
            "p50_by_floor": round(told["p50_ms"] / floor_p50, 2),
            "unknown_by_known": round(told["unknown_p50_ms"] / told["known_p50_ms"], 2) if unknown else None,
            "requests_per_cpu_s": round(told["requests"] / spent, 1),
            "memory_mb": memory_mb(serve.process.pid),
        }
        say("as many requests as it takes from 16 connections")
        spent = cpu_seconds(serve.process.pid)
        most = load(url, home, ["--rate", "0", "--n", str(n), "--connections", "16", "--seconds", "10", *mixed])
        spent = cpu_seconds(serve.process.pid) - spent
        report["requests_per_s"] = most["requests_per_s"]
        report["requests_per_cpu_s_at_most"] = round(most["answered"] / spent, 1)
    print(json.dumps(report, indent=2))
    if json_file:
        write_evidence(json_file, report)


def say(what: str) -> None:
    print(f"· {what}", file=sys.stderr, flush=True)


def load(url: str, home: Path, options: list[str]) -> dict:
    command = [sys.executable, "-m", "benchmarks._load", url, str(home / "ids.txt"), *options]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


class Floor:
    """The floor as a process."""

    def __init__(self, home: Path, address: str):
        command = [sys.executable, "-m", "benchmarks._floor", str(home), address]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> "Floor":
        return self

    @property
    def url(self) -> str:
        if not hasattr(self, "_url"):
            assert self.process.stdout is not None
            self._url = self.process.stdout.readline().split()[-1]
        return self._url

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()


def processes(pid: int) -> list[int]:
    """A process and its children."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *map(int, children)]


def cpu_seconds(pid: int) -> float:
    """CPU that a process and its children have taken."""
    ticks = 0
    for one in processes(pid):
        fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def memory_mb(pid: int) -> dict[str, list[int]]:
    """Of a process and its children: what each holds, and what no other process shares."""
    found: dict[str, list[int]] = {"resident": [], "private": []}
    for one in processes(pid):
        lines = Path(f"/proc/{one}/smaps_rollup").read_text().splitlines()[1:]
        sizes = {name: int(size) // 1024 for name, size, *_ in (line.replace(":", "").split() for line in lines)}
        found["resident"].append(sizes["Rss"])
        found["private"].append(sizes["Private_Clean"] + sizes["Private_Dirty"])
    return found


def make_home(home: Path, redis: str, bundle: Bundle) -> int:
    """Publish a bundle, and write what the stream and the catalogue would have into Redis; its cut."""
    import pandas as pd

    from feature_repo.store import open_store, register
    from model.settings.settings import Settings
    from model.state import QueryUpdate
    from streaming.sink.online_writer import OnlineWriter
    from streaming.stages import query_stage

    card = Settings(dataset=bundle.manifest.dataset).card
    BundleStore(home / "bundles").publish(bundle)
    state = bundle.queries
    (home / "ids.txt").write_text("\n".join(state.ids))
    store = open_store(home, redis)
    register(store, card, home)
    writer = OnlineWriter(store, bundle.version)
    every = QueryUpdate(*(state.columns.get(field.name, np.arange(len(state))) for field in fields(QueryUpdate)))
    for rows in np.array_split(np.arange(len(state)), max(1, len(state) // 1_024)):
        written = query_stage.changelog(every, state.ids, bundle.items.ids, rows)
        writer.write("query", written, np.full(len(rows), int(time.time() * 1e6)))
    view = store.get_feature_view("query_profile")
    columns = {
        "query_id": state.ids,
        "event_timestamp": pd.Timestamp.now("UTC"),
        "created_timestamp": pd.Timestamp.now("UTC"),
    }
    for field in view.features:
        columns[field.name] = profile_column(bundle, field.name, len(state))
    store.write_to_online_store("query_profile", pd.DataFrame(columns))
    return bundle.manifest.cut_ms


def profile_column(bundle: Bundle, name: str, size: int) -> list:
    """The values that a query's profile was encoded from."""
    spec, state, at = bundle.manifest.query, bundle.queries, 0
    for field in spec.categories:
        if field.name == name:
            values = [None, *field.values]
            return [values[max(0, code - field.offset)] for code in state.codes[:, at].tolist()]
        at += field.slots
    for k, number in enumerate(spec.numbers):
        if number.name == name:
            return (state.numbers[:, k] * number.std + number.mean).tolist()
    return [1 if name == "known" else None] * size


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
        from model.click import Click
        from streaming.clicks import ClickWriter

        bootstrap, per_second, ids, cut_ms = self._args
        writer, rng, began, sent = ClickWriter(bootstrap, linger_ms=20), np.random.default_rng(0), time.monotonic(), 0
        while per_second and not self._stop.wait(0.05):
            while sent < (time.monotonic() - began) * per_second:
                query, item = ids[rng.integers(len(ids))], str(rng.integers(1, 1_600))
                writer.send(Click(event_id=f"load-{sent}", query_id=query, item_id=item, event_time=cut_ms + sent))
                sent += 1
        writer.close()


def summary(told: dict, before: dict, after: dict) -> dict:
    """The load's figures, and the mean ms of each step: HTTP and the store's read, the turn, what is computed."""
    answered = max(1, after["load"]["answered"] - before["load"]["answered"])
    spent = {step: 1000 * (after["seconds"][step] - before["seconds"][step]) / answered for step in after["seconds"]}
    steps = {"http": told["mean_ms"] - told["waited_ms"] - told["took_ms"], "turn": told["waited_ms"], **spent}
    return {
        **told,
        "index": after["index"]["kind"],
        "dimension": after["index"]["dimension"],
        "vectors_updated": after["index"]["updates"] - before["index"]["updates"],
        "mean_ms_by_step": {step: round(value, 3) for step, value in steps.items()},
    }


if __name__ == "__main__":
    typer.run(main)
