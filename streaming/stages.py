"""The two stages as a worker runs them: records in, a transaction's messages out, state taken over after the commit."""

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pyarrow as pa
from kafka import TopicPartition

from streaming import item_stage, query_stage
from streaming.changelog import Changelog, changes, read_range
from streaming.clicks import Clicks, decode
from streaming.config import UpdaterConfig
from streaming.duplicates import Recent
from streaming.item_vectors import ItemVectors
from streaming.packing import Headers, Packer, arrived_header, drift_header, next_header
from streaming.partitioner import RowPartitions
from streaming.profiles import Profiles
from streaming.state import Rows, SideState
from streaming.topics import CLICKS, DEAD, ITEM_VECTORS, QUERY_VECTORS, SIGNALS_TOPIC
from streaming.transactions import Message
from training.bundle import Bundle

if TYPE_CHECKING:
    from feast import FeatureStore

Array = np.ndarray


@dataclass(frozen=True)
class Outcome:
    """What a batch of records comes to: the messages of its transaction, and the values to take over after it."""

    messages: list[Message]
    new: Rows | None
    clicks: int
    rejected: int = 0
    repeated: int = 0
    read: Clicks | None = None
    arrived: int = 0
    """When the broker took the oldest of these clicks (ms); 0: there are none."""


class Stage(Protocol):
    """One stage: ``source`` is its input topic, ``changelog`` the topic that its state is rebuilt from."""

    name: str
    source: str
    changelog: str
    batch_records: int
    linger_ms: int
    state: SideState

    def open(self) -> None:
        """Get ready, before the first partition is restored."""

    def refresh(self) -> None:
        """Take over what others have published since."""

    def start_offset(self, partition: int) -> int:
        """Where to begin in a partition of the source that has never been read for this bundle."""

    def restore(self, rows: pa.RecordBatch) -> None:
        """Take over a record of the changelog."""

    def prime(self, partition: int, position: int) -> None:
        """Recall what has to be known of the source's records before ``position``, where reading begins."""

    def process(self, records: list[Any]) -> Outcome:
        """Compute; change nothing."""

    def apply(self, outcome: Outcome) -> None:
        """Take over a batch that is committed."""

    def tick(self, partitions: set[int]) -> Outcome | None:
        """What time alone has changed in some partitions, if it is worth telling."""

    def close(self) -> None: ...


class QueryStage:
    """``clicks`` → ``item-signals`` and ``query-vectors``; what is not a click → ``clicks-dead``."""

    name, source, changelog = "query", CLICKS, QUERY_VECTORS

    def __init__(self, bundle: Bundle, store: "FeatureStore", config: UpdaterConfig, signal_partitions: int):
        self.bundle, self.config = bundle, config
        self.batch_records, self.linger_ms = config.batch_clicks, config.linger_ms
        query, item = bundle.manifest.query, bundle.manifest.item
        self.state = SideState(bundle.queries, query, Profiles(store, "query", query), "history")
        self.items = ItemVectors(bundle, Profiles(store, "item", item))
        self._partitions = RowPartitions(signal_partitions)
        self._pack = Packer(bundle.version, config.record_bytes)
        self._recent = Recent(config.duplicate_window)
        self._item_vectors: Changelog | None = None

    def open(self) -> None:
        self._item_vectors = Changelog(self.config, ITEM_VECTORS, self.bundle.version)
        while not self._item_vectors.caught_up:
            self._take(timeout_ms=50)

    def refresh(self) -> None:
        self._take()

    def _take(self, timeout_ms: int = 0) -> None:
        for rows in self._item_vectors.poll(timeout_ms):
            self.items.update(rows)

    def start_offset(self, partition: int) -> int:
        return self.bundle.manifest.offsets.get(partition, 0)

    def restore(self, rows: pa.RecordBatch) -> None:
        self.state.apply(query_stage.restore(rows, self.state, self.items))

    def process(self, records: list[Any]) -> Outcome:
        read, rejects = decode(records, self.config.clock_skew_ms)
        repeats = self._recent.repeats(read)
        clicks, repeated = read.keep(~repeats), int(repeats.sum())
        messages = [Message(DEAD, 0, reject.kept, reject.key, reject.headers) for reject in rejects]
        if not len(clicks):
            return Outcome(messages, None, 0, len(rejects), repeated, read)
        step = query_stage.step(clicks, self.state, self.items, self.bundle)
        targets = self._partitions(step.items, self.items.ids)
        arrived = min(record.timestamp for record in records)
        messages += self._pack(
            SIGNALS_TOPIC,
            targets,
            lambda chosen: query_stage.signals(step, self.items, chosen),
            arrived_header(arrived),
        )
        messages += self._pack(
            QUERY_VECTORS,
            step.partitions,
            lambda chosen: query_stage.changelog(step.new, self.state.ids, self.items.ids, chosen),
            next_header(records, arrived),
        )
        return Outcome(messages, step.new, len(clicks), len(rejects), repeated, read, arrived)

    def prime(self, partition: int, position: int) -> None:
        self._recent.forget(partition)
        start = position - self._recent.window
        for records in read_range(self.config, TopicPartition(CLICKS, partition), start, position):
            self._recent.add(decode(records, self.config.clock_skew_ms)[0])

    def apply(self, outcome: Outcome) -> None:
        self._recent.add(outcome.read)
        if outcome.new is not None:
            self.state.apply(outcome.new)

    def tick(self, partitions: set[int]) -> Outcome | None:
        return None  # p_u is computed when it is asked for, as of that moment

    def close(self) -> None:
        if self._item_vectors is not None:
            self._item_vectors.close()
            self._item_vectors = None


class ItemStage:
    """``item-signals`` → ``item-vectors``."""

    name, source, changelog = "item", SIGNALS_TOPIC, ITEM_VECTORS

    def __init__(self, bundle: Bundle, store: "FeatureStore", config: UpdaterConfig, partitions: int):
        self.bundle, self.config = bundle, config
        self.batch_records, self.linger_ms = config.batch_records, 0  # the query stage has lingered already
        spec = bundle.manifest.item
        self.state = SideState(bundle.items, spec, Profiles(store, "item", spec), "vectors")
        self.state["as_of"][:] = bundle.manifest.cut_ms
        self._partitions = RowPartitions(partitions)
        self._pack = Packer(bundle.version, config.record_bytes)
        self._newest = 0  # event time of the newest click
        self._ticked = time.monotonic()
        self._next_row = 0

    def open(self) -> None: ...

    def refresh(self) -> None: ...

    def start_offset(self, partition: int) -> int:
        return 0  # signals of other bundles are dropped as they are read

    def restore(self, rows: pa.RecordBatch) -> None:
        self.state.apply(item_stage.restore(rows, self.state))

    def prime(self, partition: int, position: int) -> None: ...

    def process(self, records: list[Any]) -> Outcome:
        ours = list(changes(records, self.bundle.version))
        dim = self.bundle.manifest.config.tower.output_dim
        signals = item_stage.gather([change.rows for change in ours], [change.partition for change in ours], dim)
        if not len(signals):
            return Outcome([], None, 0)
        step = item_stage.step(signals, self.state, self.bundle)
        self._newest = max(self._newest, int(signals.times.max()))
        arrived = min(change.arrived for change in ours)
        messages = self._messages(step.new, step.partitions, next_header(records, arrived))
        return Outcome(messages, step.new, len(signals), arrived=arrived)

    def _messages(self, new: Rows, partitions: Array, headers: Headers) -> list[Message]:
        return self._pack(
            ITEM_VECTORS, partitions, lambda chosen: item_stage.changelog(new, self.state.ids, chosen), headers
        )

    def tick(self, partitions: set[int]) -> Outcome | None:
        """Items whose vectors have drifted: nobody clicks them, so their counters decay and their age grows.

        Time is the newest click's, so a replay of old clicks drifts at its own speed. Each tick looks at a share of
        the items, so that a large corpus does not hold up the clicks.
        """
        if time.monotonic() - self._ticked < self.config.tick_ms / 1000 or not self._newest or not partitions:
            return None
        self._ticked = time.monotonic()
        rows = np.arange(self._next_row, min(self._next_row + self.config.tick_rows, self.state.size))
        self._next_row = 0 if not len(rows) or rows[-1] + 1 >= self.state.size else int(rows[-1]) + 1
        rows = rows[self.state["as_of"][rows] < self._newest]
        rows = item_stage.drifted(rows, self.state, self._newest, self.config.tick_drift)
        owners = self._partitions(rows, self.state.ids)
        mine = np.isin(owners, list(partitions))
        if not mine.any():
            return None
        new = item_stage.recompute(rows[mine], self.state, self.bundle, self._newest)
        return Outcome(self._messages(new, owners[mine], drift_header), new, 0)

    def apply(self, outcome: Outcome) -> None:
        if outcome.new is not None:
            self.state.apply(outcome.new)

    def close(self) -> None: ...
