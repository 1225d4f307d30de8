"""``dat chaos``: kill workers and the broker at random moments, then compare every count with the truth."""

import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from cli.broker import die_with_parent
from cli.settings import Json

PARTITIONS = 4
STAGES = ("query", "item")


class ChaosError(RuntimeError):
    """The run could not be finished. The message says what did not happen."""


def chaos(
    clicks: Annotated[int, typer.Option(min=1, help="Clicks to send.")] = 200_000,
    worker_kills: Annotated[int, typer.Option(min=0, help="SIGKILLs of random workers.")] = 25,
    broker_kills: Annotated[int, typer.Option(min=0, help="SIGKILLs of the broker.")] = 5,
    workers: Annotated[int, typer.Option(min=1, help="Worker processes a stage.")] = 2,
    queries: Annotated[int, typer.Option(min=1)] = 5_000,
    items: Annotated[int, typer.Option(min=1)] = 1_000,
    rate: Annotated[
        int, typer.Option(min=1, help="Clicks a second at most, so that there is something to kill.")
    ] = 2_000,
    seed: Annotated[int, typer.Option(help="Of the clicks and of the moments of the kills.")] = 0,
    home: Annotated[
        Path | None, typer.Option("--home", help="Keep everything in this folder, for a look at it.")
    ] = None,
    json_file: Json = None,
) -> None:
    """SIGKILL workers and the broker while clicks stream in, and prove that every click counted exactly once.

    It uses a made-up bundle with a frozen item tower, so that each query's augmented vector has one right answer,
    which is computed by one thread and compared. Exit status 1 if anything was lost, doubled, or differs.
    """
    folder = home or Path(tempfile.mkdtemp(prefix="dat-chaos-"))
    try:
        result = Storm(folder, clicks, worker_kills, broker_kills, workers, queries, items, rate, seed).run()
    finally:
        if home is None:
            shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps(result, indent=2))
    if json_file:
        json_file.write_text(json.dumps(result, indent=2))
    good = result["lost"] == result["doubled"] == 0 and result["max_difference"] <= 1e-5
    raise typer.Exit(0 if good else 1)


class Storm:
    """One run: clicks in, kills at random, counts compared in the end."""

    def __init__(
        self, folder: Path, clicks: int, worker_kills: int, broker_kills: int, workers: int, queries: int, items: int,
        rate: int, seed: int,
    ):  # fmt: skip
        from cli.broker import LocalBroker
        from cli.preflight import quiet

        quiet()
        self.folder = folder
        self.worker_kills, self.broker_kills, self.workers = worker_kills, broker_kills, workers
        self.queries, self.items, self.rate, self.seed = queries, items, rate, seed
        self.random = random.Random(seed)
        self.total = clicks
        self.broker = LocalBroker(folder / "kafka")
        self.processes: dict[str, subprocess.Popen] = {}
        self.clicks: list = []
        self.starts: Counter[str] = Counter()
        self.sent = 0
        self.kills = ["worker"] * worker_kills + ["broker"] * broker_kills
        self.random.shuffle(self.kills)
        self.moments = sorted(int(self.random.uniform(0.02, 0.98) * clicks) for _ in self.kills)
        self.limit = self.moments[0] if self.moments else clicks
        self.failure: Exception | None = None

    def run(self) -> dict:
        """Everything; returns the summary."""
        from cli.made_up import made_up_bundle, made_up_clicks, made_up_home
        from streaming.clients import create_topics

        started = time.monotonic()
        self.bundle = made_up_bundle(self.queries, self.items, self.seed)
        made_up_home(self.folder, self.bundle)
        self.clicks = made_up_clicks(self.total, self.queries, self.items, self.seed)
        try:
            self.broker.start()
            create_topics(self.broker.bootstrap, PARTITIONS)
            for stage in STAGES:
                for number in range(self.workers):
                    self._start(f"{stage}-{number}")
            self._wait_until_ready(len(self.processes))
            producer = threading.Thread(target=self._produce, daemon=True)
            producer.start()
            self._kill_at_random(producer)
            producer.join()
            if self.sent < self.total:
                raise ChaosError(f"only {self.sent} of {self.total} clicks were acknowledged: {self.failure!r}")
            self._wait_until_applied()
            return self._compare() | {
                "clicks": self.total,
                "worker_kills": self.worker_kills,
                "broker_kills": self.broker_kills,
                "seconds": round(time.monotonic() - started, 1),
            }
        finally:
            for process in self.processes.values():
                process.kill()
                process.wait()
            self.broker.stop()

    def _start(self, name: str) -> None:
        stage, number = name.split("-")
        self.starts[name] += 1
        log = (self.folder / f"{name}.log").open("ab")
        self.processes[name] = subprocess.Popen(
            [
                sys.executable, "-m", "cli", "updater", "--home", str(self.folder),
                "--bootstrap", self.broker.bootstrap, "--stage", stage, "--instance", number, "--no-feast",
            ],
            stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            preexec_fn=die_with_parent,
        )  # fmt: skip
        log.close()

    def _ready(self) -> list[str]:
        """The workers that are at work: each says so once a start."""
        logs = {name: self.folder / f"{name}.log" for name in self.processes}
        said = {name: f"\n{log.read_text(errors='replace')}".count("\nupdating") for name, log in logs.items()}
        return [name for name, times in said.items() if times == self.starts[name]]

    def _wait_until_ready(self, how_many: int, timeout_s: float = 180) -> list[str]:
        deadline = time.monotonic() + timeout_s
        while len(ready := self._ready()) < how_many:
            if time.monotonic() > deadline:
                raise ChaosError(f"the workers are not ready after {timeout_s:.0f} s; see {self.folder}")
            time.sleep(0.1)
        return ready

    def _produce(self) -> None:
        try:
            self._send_all()
        except Exception as error:  # told by the thread that waits for this one
            self.failure = error

    def _send_all(self) -> None:
        """Send all clicks, in order; the producer is idempotent, so a resend after a lost answer repeats nothing."""
        from streaming.clicks import ClickWriter

        writer = ClickWriter(self.broker.bootstrap, linger_ms=20)
        pending = []
        for number, click in enumerate(self.clicks):
            pending.append(writer.send(click))
            if len(pending) >= 500:
                for future in pending:
                    future.get(120)
                pending.clear()
                self.sent = number + 1
                time.sleep(500 / self.rate)
                while self.limit <= self.sent < self.total:
                    time.sleep(0.01)
        writer.flush()
        for future in pending:
            future.get(120)
        self.sent = len(self.clicks)
        writer.close()

    def _kill_at_random(self, producer: threading.Thread) -> None:
        """Spread the kills over the stream. The stream waits for its victims to be at work, not for their deaths."""
        for kind, limit in zip(self.kills, [*self.moments[1:], self.total], strict=True):
            while self.sent < self.limit and producer.is_alive():
                time.sleep(0.01)
            name = self.random.choice(self._wait_until_ready(1))
            self.limit = limit  # clicks flow again
            time.sleep(self.random.uniform(0.05, 0.4))
            if kind == "broker":
                self.broker.kill()
                time.sleep(1)
                self.broker.start()
            else:
                process = self.processes[name]
                process.send_signal(signal.SIGKILL)
                process.wait()
                self._start(name)
        self.limit = self.total

    def _wait_until_applied(self, timeout_s: float = 300) -> None:
        deadline, last, applied = time.monotonic() + timeout_s, None, None
        while True:
            applied = tuple(sum(counts.values()) for counts in self._counts())
            if min(applied) >= self.total and applied == last:  # stable: nothing is counted twice later
                return
            if time.monotonic() > deadline:
                raise ChaosError(
                    f"after {timeout_s:.0f} s {applied} of {self.total} clicks are applied; see {self.folder}"
                )
            last = applied
            time.sleep(2)

    def _counts(self) -> tuple[dict[str, int], dict[str, int]]:
        from streaming.topics import ITEM_VECTORS, QUERY_VECTORS

        self.rows = {}
        found = []
        for topic, table in ((QUERY_VECTORS, self.bundle.queries), (ITEM_VECTORS, self.bundle.items)):
            before = dict(zip(table.ids, table.folded.tolist(), strict=True))
            self.rows[topic] = self._last_rows(topic)
            found.append({key: row["folded"] - before.get(key, 0) for key, row in self.rows[topic].items()})
        return found[0], found[1]

    def _last_rows(self, topic: str) -> dict[str, dict]:
        from kafka import TopicPartition

        from streaming.changelog import read_committed
        from streaming.config import KafkaConnection

        connection = KafkaConnection(bootstrap=self.broker.bootstrap)
        partitions = [TopicPartition(topic, p) for p in range(PARTITIONS)]
        last = {}
        for change in read_committed(connection, partitions, self.bundle.version):
            if not change.drift:
                rows = change.rows.select(["id", "folded", "a"])
                last.update({row["id"]: row for row in rows.to_pylist()})
        return last

    def _compare(self) -> dict:
        import numpy as np

        from cli.made_up import one_thread
        from streaming.topics import QUERY_VECTORS

        lost = doubled = 0
        truths = Counter(c.query_id for c in self.clicks), Counter(c.item_id for c in self.clicks)
        for truth, counts in zip(truths, self._counts(), strict=True):
            for key in truth.keys() | counts.keys():
                difference = counts.get(key, 0) - truth.get(key, 0)
                lost, doubled = lost + max(0, -difference), doubled + max(0, difference)
        reference = one_thread(self.bundle, self.clicks)
        rows = self.rows[QUERY_VECTORS]
        differences = [
            np.abs(np.reshape(rows[key]["a"], a.shape) - a).max() for key, a in reference.items() if key in rows
        ]
        return {
            "lost": lost,
            "doubled": doubled,
            "queries": len(truths[0]),
            "items": len(truths[1]),
            "max_difference": float(max(differences)),
        }
