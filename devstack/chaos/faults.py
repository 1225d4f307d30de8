"""Clicks stream in while workers, the broker and Redis are killed, frozen and stopped at random moments."""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from devstack.broker import LocalBroker
from devstack.processes import start_child
from devstack.redis import LocalRedis

PARTITIONS = 4
STAGES = ("query", "item")
SESSION_S = 6
_ENVIRONMENT = {"DAT_UPDATER__SESSION_TIMEOUT_MS": str(1_000 * SESSION_S), "DONT_FAKE_MONOTONIC": "1"}


class ChaosError(RuntimeError):
    """The run could not be finished. The message says what did not happen."""


@dataclass(frozen=True)
class Plan:
    """What is to happen; see the options of ``dat chaos``."""

    clicks: int
    worker_kills: int = 0
    broker_kills: int = 0
    redis_stops: int = 0
    freezes: int = 0
    redis_hangs: int = 0
    clock_steps: int = 0
    swap: bool = False
    workers: int = 2
    queries: int = 5_000
    items: int = 1_000
    rate: int = 2_000
    seed: int = 0

    @property
    def faults(self) -> list[str]:
        kinds = {
            "kill_worker": self.worker_kills,
            "kill_broker": self.broker_kills,
            "stop_redis": self.redis_stops,
            "freeze": self.freezes,
            "hang_redis": self.redis_hangs,
            "step_clock": self.clock_steps,
        }
        return [kind for kind, times in kinds.items() for _ in range(times)]

    @property
    def online(self) -> bool:
        """Whether an online store is written: where it is what goes wrong, or what others may leave wrong."""
        return bool(self.redis_stops or self.redis_hangs or self.freezes or self.clock_steps)


class ChaosRun:
    """One run: clicks in, faults at random, everything compared in the end."""

    def __init__(self, folder: Path, plan: Plan):
        self.folder, self.plan = folder, plan
        self.random = random.Random(plan.seed)
        self.broker = LocalBroker(folder / "kafka")
        self.redis = LocalRedis(folder / "redis", keep=True) if plan.online else None
        self.processes: dict[str, subprocess.Popen] = {}
        self.clicks: list = []
        self.starts: Counter[str] = Counter()
        self.sent = 0
        self.faults = plan.faults
        self.random.shuffle(self.faults)
        if plan.swap:
            self.faults.insert(len(self.faults) // 2, "swap")
        self.moments = sorted(int(self.random.uniform(0.02, 0.98) * plan.clicks) for _ in self.faults)
        self.limit = self.moments[0] if self.moments else plan.clicks
        self.failure: Exception | None = None

    def run(self) -> dict:
        """Everything; returns the summary.

        Raises:
            ChaosError: it could not be finished.
        """
        from devstack.synthetic_bundle import made_up_bundle, made_up_clicks, made_up_home
        from streaming.kafka.topics import create_topics

        started, plan = time.monotonic(), self.plan
        self.bundle = made_up_bundle(plan.queries, plan.items, plan.seed)
        made_up_home(self.folder, self.bundle)
        self.clicks = made_up_clicks(plan.clicks, plan.queries, plan.items, plan.seed)
        with contextlib.ExitStack() as stack:
            if self.redis:
                stack.enter_context(self.redis)
            stack.callback(self.broker.stop)
            stack.callback(self._kill_all)
            self.broker.start()
            create_topics(self.broker.bootstrap, PARTITIONS)
            for stage in STAGES:
                for number in range(plan.workers):
                    self._start(f"{stage}-{number}")
            self._wait_until_ready(len(self.processes))
            producer = threading.Thread(target=self._produce, daemon=True)
            producer.start()
            self._strike(producer)
            producer.join()
            if self.sent < plan.clicks:
                raise ChaosError(f"only {self.sent} of {plan.clicks} clicks were acknowledged: {self.failure!r}")
            counts = Counter(plan.faults)
            return self._outcome() | {
                "clicks": plan.clicks,
                "faults": dict(counts),
                "swap": plan.swap,
                "seconds": round(time.monotonic() - started, 1),
            }

    def _kill_all(self) -> None:
        for process in self.processes.values():
            process.kill()
            process.wait()

    def _start(self, name: str, clock: tuple[str, ...] = ()) -> None:
        stage, number = name.split("-")
        self.starts[name] += 1
        log = (self.folder / f"{name}.log").open("ab")
        self.processes[name] = start_child(
            [
                *clock, sys.executable, "-m", "cli", "updater", "--home", str(self.folder),
                "--bootstrap", self.broker.bootstrap, "--stage", stage, "--instance", number,
                *(["--redis", self.redis.address] if self.redis else ["--no-feast"]),
            ],
            log, env=os.environ | _ENVIRONMENT,
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
                time.sleep(500 / self.plan.rate)
                while self.limit <= self.sent < self.plan.clicks:
                    time.sleep(0.01)
        writer.flush()
        for future in pending:
            future.get(120)
        self.sent = len(self.clicks)
        writer.close()

    def _strike(self, producer: threading.Thread) -> None:
        """Spread the faults over the stream. The stream waits for its victims to be at work, not for their deaths."""
        for kind, limit in zip(self.faults, [*self.moments[1:], self.plan.clicks], strict=True):
            while self.sent < self.limit and producer.is_alive():
                time.sleep(0.01)
            name = self.random.choice(self._wait_until_ready(1))
            self.limit = limit  # clicks flow again
            time.sleep(self.random.uniform(0.05, 0.4))
            getattr(self, f"_{kind}")(name)
        self.limit = self.plan.clicks

    def _kill_worker(self, name: str) -> None:
        self.processes[name].kill()
        self.processes[name].wait()
        self._start(name)

    def _kill_broker(self, _: str) -> None:
        self.broker.kill()
        time.sleep(1)
        self.broker.start()

    def _stop_redis(self, _: str) -> None:
        assert self.redis is not None
        self.redis.stop()
        time.sleep(self.random.uniform(1, 5))
        self.redis.start()

    def _hang_redis(self, _: str) -> None:
        assert self.redis is not None and self.redis.process is not None
        self._suspend(self.redis.process, self.random.uniform(5, 10))

    def _freeze(self, name: str) -> None:
        """Longer than its session lasts: its partitions go to others while it knows nothing; half of the times just
        after another worker has died, so that it is frozen in the midst of a rebalance."""
        others = [n for n in self.processes if n != name and n.split("-")[0] == name.split("-")[0]]
        if others and self.random.random() < 0.5:
            self._kill_worker(self.random.choice(others))
            time.sleep(self.random.uniform(0, 8))
        self._suspend(self.processes[name], SESSION_S + self.random.uniform(2, 8))

    def _suspend(self, process: subprocess.Popen, seconds: float) -> None:
        process.send_signal(signal.SIGSTOP)
        try:
            time.sleep(seconds)
        finally:
            process.send_signal(signal.SIGCONT)

    def _step_clock(self, name: str) -> None:
        """The worker starts again on a host whose clock is wrong."""
        if not shutil.which("faketime"):
            raise ChaosError("--clock-steps needs faketime on the PATH; install it, e.g. apt-get install faketime")
        self.processes[name].kill()
        self.processes[name].wait()
        seconds = self.random.choice((-1, 1)) * self.random.randint(60, 3_600)
        self._start(name, ("faketime", "-f", f"{seconds:+d}s"))

    def _swap(self, _: str) -> None:
        self._put_another_bundle_into_service()

    def _put_another_bundle_into_service(self) -> None:
        from devstack.synthetic_bundle import made_up_bundle
        from model.bundle_store import BundleStore

        self.bundle = made_up_bundle(self.plan.queries, self.plan.items, self.plan.seed + 1)
        BundleStore(self.folder / "bundles").publish(self.bundle)

    def _outcome(self, timeout_s: float = 300) -> dict:
        from devstack.chaos.verify import SIDES, compare, last_rows, wrong_in_store
        from feature_repo.store import open_store
        from model.settings.updater import KafkaConnection

        connection, before, began = KafkaConnection(bootstrap=self.broker.bootstrap), None, time.monotonic()
        deadline, recovered = began + timeout_s, None
        while True:
            rows = {side: last_rows(connection, self.bundle, side) for side in SIDES}
            applied = [sum(row["folded"] for row in side.values()) for side in rows.values()]
            if min(applied) >= self.plan.clicks:
                recovered = recovered or time.monotonic()
            if recovered and applied == before:  # stable: nothing is counted twice later
                break
            if time.monotonic() > deadline:
                applied_ = " and ".join(f"{count:,}" for count in applied)
                raise ChaosError(
                    f"after {timeout_s:.0f} s {applied_} of {self.plan.clicks:,} clicks are applied; see {self.folder}"
                )
            before = applied
            time.sleep(1)
        result = compare(self.bundle, self.clicks, rows) | {"recovery_s": round(recovered - began, 1)}
        if self.redis:
            store = open_store(self.folder, self.redis.address)
            while (wrong := wrong_in_store(store, self.bundle, rows)) and time.monotonic() < deadline:
                time.sleep(1)
            result["store_wrong"] = wrong
        return result
