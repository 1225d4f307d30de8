"""Nights meet days: clicks arrive late, early and out of order while nights land, train and publish, and the updater
goes on at each night's cut. In the end of each night every click must count once, in the state or in the stream."""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from devstack.broker import LocalBroker
from devstack.chaos.faults import PARTITIONS, ChaosError
from devstack.chaos.verify import SIDES, last_rows
from devstack.processes import start_child
from model.bundle import Bundle
from model.bundle_store import BundleStore
from model.click import Click
from model.settings.updater import KafkaConnection

Array = np.ndarray
DAY_MS = 86_400_000
FIRST_MS = 1_700_006_400_000  # 2023-11-15 00:00 UTC
CARD = """
name = "nights"
title = "Made-up nights"
folder = "log"
window_days = 3
history = 20

[clicks]
path = "clicks.csv"
query = "query"
item = "item"
time = "time"
time_unit = "ms"
event_type = "kind"
value = "amount"
events = { buy = 1.0, view = 0.5, dismiss = -1.0 }
at_least = 4.0
"""
KINDS = (("buy", None), ("view", 5.0), ("view", 1.0), ("dismiss", None), ("scroll", None))
EASY = {
    "DAT_NIGHT__GATE_COVERAGE": "0", "DAT_NIGHT__GATE_POPULARITY": "false", "DAT_NIGHT__GATE_LIVE": "false",
    "DAT_NIGHT__GATE_TOLERANCE": "0.99", "DAT_NIGHT__RULES__MIN_DAY": "0", "DAT_NIGHT__MODEL__EPOCHS": "1",
    "DAT_NIGHT__MODEL__TOWER__HIDDEN": "[16]", "DAT_NIGHT__LAKE_BATCH": "5000",
}  # fmt: skip
"""Settings of nights that train little and pass the gate, and that land several times."""


def disordered(count: int, span_ms: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """Moments of arrival [N] in order, within a span, and how much the times [N] of these clicks differ from them.

    All by about a minute; those of one in twenty, whose phone is ahead, by an hour; one in twenty is up to two days
    late.
    """
    arrival = np.sort(rng.integers(0, span_ms, count))
    skew = rng.normal(0, 60_000, count) + np.where(rng.random(count) < 0.05, 3_600_000, 0)
    skew -= np.where(rng.random(count) < 0.05, rng.integers(0, 2 * DAY_MS, count), 0)
    return arrival, skew.astype(np.int64)


@dataclass(frozen=True)
class NightPlan:
    """How much happens: events on the topic, over so many days with a night after each."""

    events: int = 20_000
    nights: int = 3
    queries: int = 300
    items: int = 400
    seed: int = 0


class NightRun:
    """One run; every part is the real one: broker, Spark, training, the updater's process and its swaps."""

    def __init__(self, folder: Path, plan: NightPlan):
        self.folder, self.plan = folder, plan
        self.home, self.card = folder / "home", folder / "card.toml"
        self.broker = LocalBroker(folder / "kafka")
        rng = np.random.default_rng(plan.seed)
        # The first day is a log file; the days after it arrive on the topic.
        self.arrival, skew = disordered(plan.events, plan.nights * DAY_MS, rng)
        times = np.maximum(FIRST_MS, FIRST_MS + DAY_MS + self.arrival + skew)
        self.events = self._made(times, rng, "t")
        self.log = self._made(np.sort(FIRST_MS + rng.integers(0, DAY_MS, plan.events // 4)), rng, "l")

    def _made(self, times: Array, rng: np.random.Generator, letter: str) -> list[Click]:
        plan, n = self.plan, len(times)
        who, what = (plan.queries * rng.random(n) ** 2).astype(int), (plan.items * rng.random(n) ** 2).astype(int)
        kinds = [KINDS[k] for k in rng.choice(len(KINDS), n, p=(0.4, 0.3, 0.1, 0.1, 0.1)).tolist()]
        return [
            Click(event_id=f"{letter}{k}", query_id=f"q{who[k]}", item_id=f"i{what[k]}", event_time=int(times[k]),
                  event_type=kinds[k][0], value=kinds[k][1])
            for k in range(n)
        ]  # fmt: skip

    def run(self) -> dict[str, Any]:
        """Everything; returns the summary.

        Raises:
            ChaosError: it could not be finished.
        """
        from streaming.kafka.topics import create_topics

        began, results, updater = time.monotonic(), [], None
        self._write_log()
        sent = 0
        with ExitStack() as stack:
            stack.callback(self.broker.stop)
            self.broker.start()
            create_topics(self.broker.bootstrap, PARTITIONS)
            for night in range(1, self.plan.nights + 1):
                upto, half = np.searchsorted(self.arrival, [night * DAY_MS, (night + 0.5) * DAY_MS]).tolist()
                self._send(sent, upto)
                bundle = self._night(night, upto, half)
                sent = half
                if updater is None:
                    updater = self._start("updater", "updater", "--home", self.home, "--no-feast")
                    stack.callback(updater.kill)
                results.append(self._compare(bundle, night, updater, sent))
            totals = {key: sum(result[key] for result in results) for key in ("lost", "doubled")}
        return totals | {
            "nights": results, "events": len(self.events) + len(self.log), "seconds": round(time.monotonic() - began, 1)
        }  # fmt: skip

    def _write_log(self) -> None:
        (self.folder / "log").mkdir(parents=True)
        self.card.write_text(CARD)
        rows = (f"{c.query_id},{c.item_id},{c.event_time},{c.event_type},{c.value or ''}" for c in self.log)
        (self.folder / "log" / "clicks.csv").write_text("\n".join(["query,item,time,kind,amount", *rows]) + "\n")
        same = {(c.query_id, c.item_id, c.event_time, c.event_type): c for c in self.log}
        self.log = list(same.values())  # a log's rows that say the same are one event

    def _send(self, start: int, stop: int) -> None:
        from streaming.clicks import ClickWriter

        writer = ClickWriter(self.broker.bootstrap, linger_ms=20)
        for future in [writer.send(click) for click in self.events[start:stop]]:
            future.get(120)
        writer.close()

    def _start(self, log: str, *arguments: object) -> subprocess.Popen:
        output = (self.folder / f"{log}.log").open("ab")
        with output:
            command = [sys.executable, "-W", "ignore", "-m", "cli", *map(str, arguments)]
            return start_child([*command, "--bootstrap", self.broker.bootstrap], output, env=os.environ | EASY)

    def _night(self, night: int, start: int, stop: int) -> Bundle:
        """The night after a day: it predicts that day from those before, and its state goes up to its landing.

        The next day has begun while it lands and trains: some of these events arrive each second, the rest at its end.
        """
        day = (datetime.fromtimestamp(FIRST_MS / 1000, UTC) + timedelta(days=night)).date()
        file = self.folder / "night.json"
        process = self._start(
            "night", "nightly", "--data", self.card, "--home", self.home, "--date", day, "--json", file
        )
        while process.poll() is None:
            following = min(start + max((stop - start) // 40, 1), stop)
            self._send(start, following)
            start = following
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(1)
        self._send(start, stop)
        if process.returncode != 0:
            raise ChaosError(f"the night of {day} ended with status {process.returncode}; see {self.folder}/night.log")
        return BundleStore(self.home / "bundles").load(json.loads(file.read_text())["bundle"])

    def _compare(self, bundle: Bundle, night: int, updater: subprocess.Popen, sent: int) -> dict[str, Any]:
        """Wait until the updater has worked on everything for a bundle, and count.

        Raises:
            ChaosError: it has ended, or does not get there.
        """
        rule = bundle.manifest.rule
        clicks = [c for c in [*self.log, *self.events[:sent]] if rule.weight(c.event_type, c.value) > 0]
        truth = {"query": Counter(c.query_id for c in clicks), "item": Counter(c.item_id for c in clicks)}
        tables = {"query": bundle.queries, "item": bundle.items}
        in_state = {side: Counter(dict(zip(t.ids, t.clicks.tolist(), strict=True))) for side, t in tables.items()}
        connection, deadline, before = KafkaConnection(bootstrap=self.broker.bootstrap), time.monotonic() + 300, None
        while True:
            if updater.poll() is not None:
                raise ChaosError(f"the updater has ended; see {self.folder}/updater.log")
            counts = {side: Counter(counted) for side, counted in in_state.items()}
            for side in SIDES:
                counts[side].update(
                    {key: row["clicks"] - counts[side][key] for key, row in last_rows(connection, bundle, side).items()}
                )
            arrived = [sum(of.values()) for of in counts.values()]
            if arrived == before and (min(arrived) >= len(clicks) or time.monotonic() > deadline):
                break
            before = arrived
            time.sleep(1)
        lost, doubled = (
            sum(sum((a[side] - b[side]).values()) for side in SIDES)
            for a, b in ((truth, counts), (counts, truth))
        )  # fmt: skip
        return {
            "night": night, "bundle": bundle.version, "clicks": len(clicks), "lost": lost, "doubled": doubled,
            "in_state": sum(in_state["query"].values()), "offsets": bundle.manifest.offsets,
        }  # fmt: skip
