"""How soon a click shows, what happens above the maximum rate, and how soon a restart is ready.

    python -m benchmarks.freshness --json freshness.json

The whole system as processes: broker, both stages with the Feast sink (Redis where there is one, else SQLite), service.
``fresh_p50_ms``, ``fresh_p99_ms``: at a steady rate, from a click's acknowledgement by the broker to an answer of the
service that reflects it. Then a burst as fast as one producer can: ``burst_per_s`` came in, ``burst_lag`` clicks waited
at most, ``drained_s`` after the last one all were folded; ``failed`` answers and ``lost`` clicks of the whole run.
``restart_ready_s``: from the start of a query worker to its being at work, with ``restart_queries`` of state.
``failover_s``, ``failover_warm_s``: from the SIGKILL of one of two query workers to the last click of its partition
being folded, where ``failover_queries`` have clicked; a session lasts six seconds of it.
"""

import contextlib
import json
import os
import shutil
import tempfile
import threading
import time
import urllib.parse
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from cli.evidence import write_evidence
from cli.options import Json
from devstack.processes import Verb

if TYPE_CHECKING:
    from model.bundle import Bundle

PROBES = 50
Option = typer.Option


def freshness(
    rate: Annotated[int, Option(min=1, help="Clicks a second of the steady part.")] = 2_000,
    seconds: Annotated[int, Option(min=1, help="How long it lasts.")] = 30,
    burst: Annotated[int, Option(min=0, help="Clicks of the burst.")] = 200_000,
    queries: Annotated[int, Option(min=1)] = 50_000,
    items: Annotated[int, Option(min=1)] = 20_000,
    restart_queries: Annotated[
        int, Option(min=1, help="Queries whose state the restart has to bring back.")
    ] = 1_000_000,
    failover_queries: Annotated[
        int, Option(min=0, help="Queries that have clicked when a worker is killed; 0: none is.")
    ] = 200_000,
    json_file: Json = None,
) -> None:
    """Measure the loop from the click to the answer, on made-up clicks."""
    from devstack.broker import LocalBroker
    from devstack.redis import LocalRedis
    from devstack.synthetic_bundle import made_up_bundle, made_up_home
    from streaming.kafka.topics import create_topics

    result: dict[str, Any] = {"rate": rate, "cores": os.cpu_count(), "load_before": os.getloadavg()[0]}
    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dat-bench-")))
        broker = stack.enter_context(LocalBroker(scratch / "kafka"))
        create_topics(broker.bootstrap, 2)
        bundle = made_up_bundle(queries, items, frozen=False)
        made_up_home(scratch / "home", bundle)
        result["restart_ready_s"] = restart(scratch / "large", broker.bootstrap, restart_queries, items)
        result["restart_queries"] = restart_queries
        if failover_queries:
            result |= failover(scratch / "failover", broker.bootstrap, failover_queries, items)
        common = ["--home", str(scratch / "home"), "--bootstrap", broker.bootstrap]
        if shutil.which("redis-server"):
            common += ["--redis", stack.enter_context(LocalRedis(scratch / "redis")).address]
        result["online"] = "redis" if "--redis" in common else "sqlite"
        stages = [
            Verb(["updater", *common, "--stage", stage], scratch / f"{stage}.log", "updating")
            for stage in ("item", "query")
        ]
        serve = Verb(["serve", *common, "--port", "0", "--clock", "wall"], scratch / "serve.log", "serving")
        for verb in (*stages, serve):
            stack.enter_context(verb)
        lines = [verb.wait_ready() for verb in (*stages, serve)]
        url = lines[-1].split(" at ")[1].split()[0]
        while not _ready(url):
            time.sleep(0.2)
        result |= Flow(broker.bootstrap, bundle, url).run(rate, seconds, burst)
    print(json.dumps(result, indent=2))
    if json_file:
        write_evidence(json_file, result)


class Flow:
    """Clicks at a steady rate with probes in between, then a burst."""

    def __init__(self, bootstrap: str, bundle: "Bundle", url: str):
        from model.settings.updater import KafkaConnection
        from streaming.clicks import ClickWriter
        from streaming.kafka.changelog import Changelog

        self.bundle, self.url = bundle, url
        kafka = KafkaConnection(bootstrap=bootstrap)
        self.changelog = Changelog(kafka, kafka.topics.item_vectors, bundle.version)
        self.folded: dict[str, int] = {}
        self.writer = ClickWriter(bootstrap, linger_ms=5)
        self.probe = ClickWriter(bootstrap)
        self.sent = self.failed = 0
        self.fresh_ms: list[float] = []
        self.counts: dict[str, int] = {}
        self.steady_per_s = 0.0

    def run(self, rate: int, seconds: int, burst: int) -> dict:
        background = threading.Thread(target=self._steadily, args=(rate, seconds))
        background.start()
        number = 0
        while background.is_alive():
            self._probe(f"probe-{number % PROBES}")
            number += 1
            time.sleep(0.02)
        background.join()
        result: dict[str, float] = {"probes": len(self.fresh_ms), "steady_per_s": round(self.steady_per_s)}
        settled = self.fresh_ms[len(self.fresh_ms) // 10 :]  # the first ones pay for connections and caches
        result |= {f"fresh_p{q}_ms": round(float(np.percentile(settled, q)), 1) for q in (50, 99)}
        result |= self._burst(burst) if burst else {}
        self._drain()
        return result | {"failed": self.failed, "lost": self._missing()}

    def _steadily(self, rate: int, seconds: int) -> None:
        clicks = self._clicks(rate * seconds, seed=1)
        started = time.perf_counter()
        for number, click in enumerate(clicks):
            ahead = number / rate - (time.perf_counter() - started)
            if ahead > 0.005:
                time.sleep(ahead)
            self.writer.send(click)
        self.writer.flush()
        self.sent += len(clicks)
        self.steady_per_s = len(clicks) / (time.perf_counter() - started)

    def _burst(self, burst: int) -> dict:
        clicks, most, started = self._clicks(burst, seed=2), 0, time.perf_counter()
        for start in range(0, burst, 20_000):
            part = clicks[start : start + 20_000]
            for future in [self.writer.send(click) for click in part]:
                future.get(60)
            self.sent += len(part)
            most = max(most, self._missing())
            self._probe("probe-burst", timeout_ms=1)  # an answer, however old
        ended = time.perf_counter()
        self._drain()
        return {
            "burst_clicks": burst,
            "burst_per_s": round(burst / (ended - started)),
            "burst_lag": most,
            "drained_s": round(time.perf_counter() - ended, 1),
        }

    def _drain(self, timeout_s: float = 120) -> None:
        deadline = time.monotonic() + timeout_s
        while self._missing() > 0 and time.monotonic() < deadline:
            time.sleep(0.1)

    def _clicks(self, count: int, seed: int) -> list:
        from devstack.synthetic_bundle import made_up_clicks

        now = int(time.time() * 1000)
        clicks = made_up_clicks(count, len(self.bundle.queries.ids), len(self.bundle.items.ids), seed)
        return [click.model_copy(update={"event_time": now}) for click in clicks]

    def _probe(self, query: str, timeout_ms: int = 20_000) -> None:
        """One click of a query of its own, then the answer that knows of it."""
        from model.click import Click

        self.counts[query] = self.counts.get(query, 0) + 1
        item = self.bundle.items.ids[self.counts[query] % len(self.bundle.items.ids)]
        event = f"{query}-{self.counts[query]}"
        click = Click(event_id=event, query_id=query, item_id=item, event_time=int(time.time() * 1000))
        written = self.probe.write(click)
        self.sent += 1
        acknowledged = time.perf_counter()
        token = f"{written.partition}:{written.offset}"
        asked = {"query_id": query, "n": 10, "wait_for": token, "timeout_ms": timeout_ms}
        try:
            with urllib.request.urlopen(f"{self.url}/v1/retrieve?{urllib.parse.urlencode(asked)}", timeout=60) as reply:
                answer = json.load(reply)
        except OSError:
            self.failed += 1
            return
        if answer["reached"]:
            self.fresh_ms.append((time.perf_counter() - acknowledged) * 1000)
        elif timeout_ms > 1:
            self.failed += 1

    def _missing(self) -> int:
        """Clicks that are sent and not yet committed by the item stage."""
        while batches := list(self.changelog.poll(timeout_ms=20)):
            for rows in batches:
                self.folded.update(zip(rows["id"].to_pylist(), rows["folded"].to_pylist(), strict=True))
        return self.sent - sum(self.folded.values())


def restart(home: Path, bootstrap: str, queries: int, items: int) -> float:
    """Seconds from the start of a query worker to its being at work, the bundle's queries being its state."""
    from devstack.synthetic_bundle import made_up_bundle, made_up_home

    bundle = made_up_bundle(queries, items, seed=9, frozen=False)
    made_up_home(home, bundle)
    del bundle
    started = time.perf_counter()
    arguments = ["updater", "--home", str(home), "--bootstrap", bootstrap, "--stage", "query", "--no-feast"]
    with Verb(arguments, home / "restart.log", "updating") as worker:
        worker.wait_ready()
        return round(time.perf_counter() - started, 1)


def failover(home: Path, bootstrap: str, queries: int, items: int) -> dict[str, float]:
    """Seconds until another worker folds a killed one's clicks; with and without ``warm``."""
    from benchmarks.updater import write
    from devstack.synthetic_bundle import made_up_bundle, made_up_clicks, made_up_home
    from model.settings.updater import UpdaterConfig
    from streaming.kafka.offsets import committed, ends, group_name
    from streaming.kafka.topics import create_topics

    bundle = made_up_bundle(queries, items, seed=8, frozen=False)
    made_up_home(home, bundle)
    clicks = [
        click.model_copy(update={"query_id": f"q{k}"})
        for k, click in enumerate(made_up_clicks(queries, queries, items))
    ]
    some = [click.model_copy(update={"event_id": f"again-{click.event_id}"}) for click in clicks[:100]]
    result: dict[str, float] = {"failover_queries": queries}
    for name, warm in (("failover_s", False), ("failover_warm_s", True)):
        kafka = UpdaterConfig(bootstrap=bootstrap, prefix=f"{name}.", session_timeout_ms=6_000, warm=warm)
        create_topics(kafka, 2)
        settings = {
            "DAT_UPDATER__PREFIX": kafka.prefix,
            "DAT_UPDATER__WARM": str(warm),
            "DAT_UPDATER__SESSION_TIMEOUT_MS": str(kafka.session_timeout_ms),
        }
        command = ["updater", "--home", str(home), "--bootstrap", bootstrap, "--stage", "query", "--no-feast"]
        group = group_name(kafka, "query", bundle.version)

        def folded(kafka: UpdaterConfig = kafka, group: str = group) -> None:
            end = ends(kafka, [kafka.topics.clicks])
            while any(committed(kafka, [group])[group].get(p, 0) < offset for p, offset in end.items()):
                time.sleep(0.1)

        with contextlib.ExitStack() as stack:
            workers = [
                Verb([*command, "--instance", one], home / f"{name}{one}.log", "updating", **settings) for one in "ab"
            ]
            for worker in workers:
                stack.enter_context(worker).wait_ready(600)
            write(kafka, clicks)
            folded()
            time.sleep(10)  # nobody dies at a moment of one's choice, and a spare is behind by a moment
            workers[1].process.kill()
            began = time.perf_counter()
            write(kafka, some)
            folded()
            result[name] = round(time.perf_counter() - began, 1)
    return result


def _ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/readyz", timeout=5):
            return True
    except OSError:
        return False


if __name__ == "__main__":
    typer.run(freshness)
