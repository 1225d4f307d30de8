"""One history: clicks, workers of both stages, faults; and in the end everything against a sequential fold."""

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from types import SimpleNamespace
from typing import Any
from zlib import crc32

from kafka import TopicPartition
from kafka.errors import FencedInstanceIdError, KafkaError

from devstack.simulation.broker import SESSION, TRANSACTION, Cluster
from devstack.simulation.port import Crash, Faults, SimulatedPort
from devstack.simulation.sinks import SIDES, Index, SimulatedSinkPort, Store, Writer
from model.settings.updater import UpdaterConfig
from streaming.kafka.changelog import DRIFT, NEXT
from streaming.kafka.packing import ends, next_value
from streaming.kafka.transactions import Message, TransactionError
from streaming.sink.feast_sink import FeastSink
from streaming.stages.batch import BatchResult
from streaming.worker import Worker, WorkerError

PARTITIONS, WINDOW = 2, 6
TOPICS = {"clicks": PARTITIONS, "query-vectors": PARTITIONS, "item-signals": PARTITIONS, "item-vectors": PARTITIONS}
State = dict[str, tuple[int, int]]
"""Id → how often it was folded, and a hash of what was folded in which order."""


def folded(state: tuple[int, int], event: Any) -> tuple[int, int]:
    count, chain = state
    return count + 1, crc32(f"{chain} {event}".encode())


@dataclass
class FoldingStage:
    """A stage whose fold can be checked by eye: it counts, and hashes what it folds in order.

    The query stage's records are (event, query, item), and each becomes a signal (event, item).
    """

    name: str
    source: str
    changelog: str
    key: int  # of the record's fields, the one that it folds by
    window: int = 0
    source_id: str = "source"
    bundle: Any = field(default_factory=lambda: SimpleNamespace(version="bundle"))
    state: State = field(default_factory=dict)
    seen: dict[int, dict[str, int]] = field(default_factory=dict)
    ticks: int = 0

    def open(self) -> None: ...

    def close(self) -> None: ...

    def refresh(self) -> None: ...

    def start_offset(self, partition: int) -> int:
        return 0

    def changelog_starts(self, partitions: list[int]) -> dict:
        return {}

    def restore(self, rows: list) -> None:
        self.state.update({key: (count, chain) for key, count, chain in rows})

    def forget(self, partition: int) -> None:
        self.seen[partition] = {}

    def recall(self, records: list) -> None:
        for record in records:
            self.seen[record.partition][record.value[0]] = record.offset

    def process(self, records: list) -> BatchResult:
        new: State = {}
        messages: list[Message] = []
        seen: Any = {p: dict(events) for p, events in self.seen.items()} if self.window else {}
        homes = {}
        for record in records:
            event, key = record.value[0], record.value[self.key]
            if self.window:
                before = seen[record.partition].get(event)
                seen[record.partition][event] = record.offset
                if before is not None and before < record.offset <= before + self.window:
                    continue
            new[key] = folded(new.get(key) or self.state.get(key, (0, 0)), event)
            homes[key] = record.partition
            if self.name == "query":
                item = record.value[2]
                messages.append(message("item-signals", home(item), (event, item)))
        for partition, next_ in ends(records).items():
            rows = [(key, *new[key]) for key in new if homes[key] == partition]
            header = [(NEXT, next_value(next_, self.source_id))]
            messages.append(message(self.changelog, partition, rows, header))
        return BatchResult(messages, new, len(new), read=seen)

    def apply(self, result: BatchResult) -> None:
        self.state.update(result.new)
        read: Any = result.read
        if read:
            self.seen = read

    def tick(self, partitions: set[int]) -> BatchResult | None:
        self.ticks += 1
        if self.name == "query" or self.ticks % 5 or not partitions:
            return None
        rows = [(key, *value) for key, value in self.state.items() if home(key) in partitions][:1]
        return BatchResult([message(self.changelog, home(row[0]), [row], [(DRIFT, b"")]) for row in rows], {}, 0)


def message(topic: str, partition: int, value: Any, headers: list[tuple[str, bytes]] | None = None) -> Message:
    """A record whose value is an object: nothing is encoded here."""
    return Message(topic, partition, value, None, headers or [])


def home(key: str) -> int:
    return int(key[1:]) % PARTITIONS


class Violation(AssertionError):
    """What a history came to is not what a sequential fold comes to."""


class History:
    """One run, wholly determined by its seed.

    Args:
        port, worker, sink: To try others than the product's: a test has broken ones, which must be found out.
    """

    def __init__(
        self, seed: int, port: Callable[..., SimulatedPort] = SimulatedPort, worker: Callable[..., Worker] = Worker,
        sink: Callable[..., FeastSink] = FeastSink,
    ):  # fmt: skip
        self.random = Random(seed)
        self.cluster = Cluster(self.random, TOPICS)
        self.faults = Faults(self.random, self.interlude)
        self._port, self._worker, self._sink = port, worker, sink
        self._config = UpdaterConfig(poll_ms=1, monitor_s=1e-9)
        self._running: dict[str, Worker | FeastSink | None] = {}
        self.store, self.index = Store(), Index(self.cluster, "item-vectors")
        self._begun: set[str] = set()
        self._busy: set[str] = set()
        stages = ("query", "item", "feast")
        self.names = [f"{s}-{n}" for s in stages for n in range(self.random.randint(1, 3))]
        self._events = 0

    def run(self, steps: int = 120) -> None:
        """Everything that happens, then quiet, then the comparison.

        Raises:
            Violation: something was lost, doubled, torn or out of order, or work does not go on.
        """
        for _ in range(steps):
            self._step()
        self.faults.on = False
        quiet = SESSION + TRANSACTION + 60
        rounds = 60 * len(self.names) + quiet
        while not self._done():
            if not (rounds := rounds - 1):
                raise Violation(f"work does not go on: {self._behind()}")
            self._everybody()
        for _ in range(3):  # whoever lost its partitions meanwhile learns it
            self._everybody()
        self._compare()

    def _everybody(self) -> None:
        # In any order: in one that stays, members may join again for ever before they learn what is theirs.
        for name in self.random.sample(self.names, len(self.names)):
            self._turn(name)

    def interlude(self, steps: int) -> None:
        """A process is frozen, or waits: the others go on."""
        for _ in range(steps):
            self.cluster.pass_time(self.random.choice((1, 1, 5, 20)))
            self._step()

    def _step(self) -> None:
        if self._events < 60 and self.random.random() < 0.4:
            self._click()
        if self.random.random() < 0.2:
            self.index.read(self.random.choice((1, 5)))
        if self.faults.happens(0.003):
            self.index = Index(self.cluster, "item-vectors")  # the service starts again
        if self.faults.happens(0.003):
            self.store.rows.clear()  # it comes back empty
        name = self.random.choice(self.names)
        if name not in self._busy:
            if self._running.get(name) is not None and self.faults.happens(0.01):
                self._running[name] = None  # SIGKILL between two calls
            else:
                self._turn(name)

    def _click(self) -> None:
        number = self._events - self.random.choice((0, 0, 0, 1, 3)) if self._events else 0  # some come twice
        self._events = max(self._events, number + 1)
        chosen = Random(number)
        query, item = f"q{chosen.randrange(4)}", f"i{chosen.randrange(4)}"
        self.cluster.append("clicks", home(query), (f"e{number}", query, item))

    def _start(self, name: str) -> Worker | FeastSink:
        if name.startswith("feast"):
            return self._start_sink(name)
        stage = (
            FoldingStage("query", "clicks", "query-vectors", 1, WINDOW)
            if name.startswith("query")
            else FoldingStage("item", "item-signals", "item-vectors", 1)
        )
        limit = self.random.choice((1, 3, 10))
        port = self._port(self.cluster, self.faults, self.random, f"g-{stage.name}", (stage.source,), name, limit)
        config = self._config.model_copy(update={"warm": self.random.random() < 0.5})
        return self._worker(stage, config, threading.Event(), port)

    def _start_sink(self, name: str) -> FeastSink:
        port = SimulatedSinkPort(self.cluster, self.faults, self.random, name, self.random.choice((1, 3, 10)))
        nothing = SimpleNamespace(ids=[])
        bundle: Any = SimpleNamespace(version="bundle", queries=nothing, items=nothing)
        ahead = self.random.choice((0, 0, -1e6, 1e6))  # hosts' clocks differ
        writer: Any = Writer(self.store, self.faults, port._trouble)
        return self._sink(
            bundle, None, self._config, threading.Event(), name, port=port, writer=writer,
            clock=lambda: 1e7 + ahead + self.cluster.now,
        )  # fmt: skip

    def _turn(self, name: str) -> None:
        self._busy.add(name)
        worker = self._running.get(name)
        try:
            if worker is None:
                worker = self._running[name] = self._start(name)
                self._begun.discard(name)
            if name not in self._begun:  # as Worker.run does: every session begins anew
                worker.finish()
                worker.begin()
                self._begun.add(name)
            worker.turn()
        except (Crash, FencedInstanceIdError):
            self._running[name] = None
        except WorkerError as error:
            raise Violation(f"a worker gave up: {error}") from error
        except (KafkaError, TransactionError, TimeoutError):
            self._begun.discard(name)
        finally:
            self._busy.discard(name)

    def _groups(self) -> list[tuple[Any, str]]:
        return [
            (self.cluster.group(f"g-{s}", topic), topic) for s, topic in (("query", "clicks"), ("item", "item-signals"))
        ]

    def _behind(self) -> list:
        behind: list[Any] = []
        for group, topic in self._groups():
            for p in range(PARTITIONS):
                partition = TopicPartition(topic, p)
                records, _ = self.cluster.fetch(partition, group.offsets.get(partition, 0))
                if records or self.cluster.end(partition) < self.cluster.end(partition, False):
                    behind.append((partition, len(records)))
        return behind or [name for name in ("index", "online store") if not self._followed(name)]

    def _followed(self, name: str) -> bool:
        """Whether what follows the changelogs has their last rows."""
        if name == "index":
            self.index.read(1 << 30)
            return self.index.rows == self._rows("item-vectors")
        return all(self.store.of(side) == self._rows(topic) for topic, side in SIDES.items())

    def _done(self) -> bool:
        return not self._behind() and not any(t.state == "ongoing" for t in self.cluster._transactions.values())

    # -- the comparison -----------------------------------------------------------------------------------------------

    def _compare(self) -> None:
        signals: Counter = Counter()
        expected: State = {}
        for p in range(PARTITIONS):
            seen: dict[str, int] = {}
            for record in self.cluster.fetch(TopicPartition("clicks", p), 0)[0]:
                event, query, item = record.value
                before, seen[event] = seen.get(event), record.offset
                if before is None or record.offset > before + WINDOW:
                    expected[query] = folded(expected.get(query, (0, 0)), event)
                    signals[event, item] += 1
        self._equal("query rows", self._rows("query-vectors"), expected)
        sent = [r.value for p in range(PARTITIONS) for r in self.cluster.fetch(TopicPartition("item-signals", p), 0)[0]]
        self._equal("signals", Counter(sent), signals)
        items: State = {}
        for event, item in sent:
            items[item] = folded(items.get(item, (0, 0)), event)
        self._equal("item rows", self._rows("item-vectors"), items)
        self._equal("the online store's queries", self.store.of("query"), expected)
        self._equal("the online store's items", self.store.of("item"), items)
        self._equal("the index", self.index.rows, items)
        for name, worker in self._running.items():
            if isinstance(worker, Worker):
                owned = {p.partition for p in worker.next}
                of = expected if name.startswith("query") else items
                mine = {key: value for key, value in of.items() if home(key) in owned}
                self._equal(f"the memory of {name}", {key: worker.stage.state.get(key) for key in mine}, mine)

    def _rows(self, topic: str) -> State:
        rows: State = {}
        for p in range(PARTITIONS):
            for record in self.cluster.fetch(TopicPartition(topic, p), 0)[0]:
                rows.update({key: (count, chain) for key, count, chain in record.value})
        return rows

    def _equal(self, what: str, actual: dict, expected: dict) -> None:
        if actual != expected:
            keys = [key for key in {*actual, *expected} if actual.get(key) != expected.get(key)]
            some = [(key, actual.get(key), expected.get(key)) for key in sorted(keys, key=str)[:3]]
            raise Violation(f"{what}: {len(keys)} differ, as in (id, is, should be) {some}")
