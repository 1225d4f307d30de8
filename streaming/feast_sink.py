"""The Feast sink: what the stages have committed, into the online store.

It follows the changelogs behind the stages, so an online store that is slow or away delays nobody. Values are absolute:
after an outage, or a crash between a write and its offsets, it writes some of them again, to no effect.

Another bundle's rows are all written anew, which takes minutes where there are a million. Clicks do not wait for that:
what was clicked since the cut comes first, and from then on new clicks go before the rest of the bundle.
"""

import logging
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from kafka import KafkaConsumer, TopicPartition
from kafka.errors import FencedInstanceIdError, KafkaError
from kafka.structs import OffsetAndMetadata

from streaming import item_stage, metrics, query_stage
from streaming.changelog import Change, changes, read_committed
from streaming.clients import close_quietly, group_consumer
from streaming.config import UpdaterConfig
from streaming.offsets import sink_group
from streaming.online_writer import OnlineWriter
from streaming.partitioner import RowPartitions
from streaming.partitions import Partitions
from streaming.state import Rows
from streaming.topics import ITEM_VECTORS, QUERY_VECTORS
from streaming.worker import WorkerError
from training.bundle import Bundle

if TYPE_CHECKING:
    from feast import FeatureStore

log = logging.getLogger(__name__)
_SIDES = {QUERY_VECTORS: "query", ITEM_VECTORS: "item"}  # in the order of taking over: answers read queries
_TAKE_OVER_S = 1_800
"""How long the group waits for a sink that writes what was clicked since the cut; Kafka's default of five minutes is
too short for a million ids, and a sink that is put out of its group begins anew, for ever."""


@dataclass
class _Rest:
    """What the bundle still has of a partition's ids, and those that need it no more: the store has newer rows."""

    end: int
    """Where the changelog ended: from there on the partition is followed."""
    batches: Iterator[pa.RecordBatch]
    newer: set[str]


class FeastSink:
    """Keeps the online store's activity, augmented vectors and histories up to the stream, until told to stop.

    There is one group whatever the bundle, so that a partition's rows have one writer. Its offsets name the bundle that
    wrote last: a partition that is another bundle's is written anew, every id of it, before it is followed.
    """

    def __init__(
        self, bundle: Bundle, store: "FeatureStore", config: UpdaterConfig, stop: threading.Event, name: str = "feast"
    ):
        self.bundle, self.config, self.stop = bundle, config, stop
        self.group = sink_group(config)
        self.name = f"{name}-{config.instance}"
        self.ready = threading.Event()
        """Set once the store has all rows of the first partitions, or it has none for now."""
        self._writer = OnlineWriter(store, bundle.version)
        self._partitions = Partitions()
        self._rests: dict[TopicPartition, _Rest] = {}
        self._homes: dict[str, RowPartitions] = {}
        self._consumer: KafkaConsumer | None = None

    def run(self) -> None:
        """Follow until ``stop`` is set.

        Raises:
            WorkerError: another process runs under the same instance name.
        """
        while not self.stop.is_set():
            try:
                self._session()
            except FencedInstanceIdError as error:
                raise WorkerError.of(self.name, self.group) from error
            except (KafkaError, OSError) as error:
                log.warning("sink_interrupted sink=%s error=%r", self.name, error)
                self.stop.wait(1)

    def _session(self) -> None:
        self._partitions, self._rests = Partitions(), {}
        try:
            self._consumer = self._partitions.consumer = group_consumer(
                self.config, self.group, _SIDES, self.name,
                listener=self._partitions, max_poll_records=64, max_poll_interval_ms=1000 * _TAKE_OVER_S,
            )  # fmt: skip
            while not self.stop.is_set():
                busy = self._rests or self._partitions.new
                settled = self._partitions.settled
                polled = self._consumer.poll(timeout_ms=0 if busy else self.config.poll_ms)
                batches = {p: records for p, records in polled.items() if p in self._partitions.ready}
                if batches:
                    self._follow(batches)
                if new := list(self._partitions.new):
                    self._prepare(min(new, key=_turn))
                elif self._rests:
                    self._go_on(min(self._rests, key=_turn))
                elif settled:
                    self.ready.set()
        finally:
            if self._consumer is not None:
                close_quietly(self._consumer, 2)
                self._consumer = None

    def _prepare(self, partition: TopicPartition) -> None:
        """Make a new partition ready to be followed."""
        self._rests.pop(partition, None)  # of an earlier time: another sink may have had the partition since
        committed = self._consumer.committed(partition, metadata=True)
        foreign = committed is None or committed.metadata != self.bundle.version
        rest = self._take_over(partition) if foreign else None
        self._partitions.new.discard(partition)
        if self.stop.is_set() or partition not in self._consumer.assignment():
            return
        if rest is not None:
            self._consumer.seek(partition, rest.end)
            self._rests[partition] = rest
        self._partitions.ready.add(partition)
        self._consumer.resume(partition)

    def _take_over(self, partition: TopicPartition) -> _Rest:
        """Write what was clicked of a partition's ids since the cut; what is left is the bundle's.

        Never a bundle's row before the changelog's of the same id, which whoever waits for a click would take for news.
        """
        topic, side, size = partition.topic, _SIDES[partition.topic], self.config.sink_rows
        end = self._consumer.end_offsets([partition])[partition]
        clicked: set[str] = set()
        rows = compacted(read_committed(self.config, [partition], self.bundle.version))
        for start in range(0, len(rows) if rows is not None else 0, size):
            batch = rows.slice(start, size)
            if not self._write(side, batch):
                break
            clicked.update(batch["id"].to_pylist())
        count = len(self._consumer.partitions_for_topic(topic))
        homes = self._homes.setdefault(topic, RowPartitions(count))
        return _Rest(end, seeds(self.bundle, side, partition.partition, homes, size), clicked)

    def _go_on(self, partition: TopicPartition) -> None:
        """Write the next rows of what is left; after the last the partition's offset names this bundle."""
        rest = self._rests[partition]
        if partition not in self._partitions.ready:  # another sink has it now
            del self._rests[partition]
        elif (batch := next(rest.batches, None)) is None:
            del self._rests[partition]
            self._commit({partition: self._consumer.position(partition)})
        else:
            old = [key not in rest.newer for key in batch["id"].to_pylist()]
            if any(old):
                self._write(_SIDES[partition.topic], batch.filter(pa.array(old)))

    def _follow(self, batches: dict[TopicPartition, list]) -> None:
        for topic, side in _SIDES.items():
            records = [record for partition, batch in batches.items() if partition.topic == topic for record in batch]
            rows = latest([c.rows for c in changes(records, self.bundle.version) if not c.drift])
            if rows is None:
                continue
            for partition, rest in self._rests.items():
                if partition.topic == topic:
                    rest.newer.update(rows["id"].to_pylist())
            for start in range(0, len(rows), self.config.sink_rows):
                if not self._write(side, rows.slice(start, self.config.sink_rows)):
                    return
        self._commit({p: batch[-1].offset + 1 for p, batch in batches.items() if p not in self._rests})

    def _commit(self, offsets: dict[TopicPartition, int]) -> None:
        if not offsets:
            return
        version = self.bundle.version
        self._consumer.commit({p: OffsetAndMetadata(offset, version, -1) for p, offset in offsets.items()})

    def _write(self, side: str, rows: pa.RecordBatch) -> bool:
        """Write until it succeeds; False if told to stop before."""
        pause = 0.1
        while True:
            try:
                self._writer.write(side, rows)
            except Exception as error:  # the online stores raise their drivers' own errors
                log.warning("online_store_unavailable rows=%d error=%r retry_s=%.1f", len(rows), error, pause)
                metrics.ONLINE_FAILED.inc()
                if self.stop.wait(pause):
                    return False
                pause = min(2 * pause, self.config.retry_max_s)
            else:
                metrics.ONLINE_ROWS.inc(len(rows))
                return True


def _turn(partition: TopicPartition) -> tuple[int, int]:
    return list(_SIDES).index(partition.topic), partition.partition


def compacted(found: Iterable[Change], rows: int = 100_000) -> pa.RecordBatch | None:
    """The last row of each id among many changes, without ever holding many more than that."""
    kept: list[pa.RecordBatch] = []
    for change in found:
        if not change.drift:
            kept.append(change.rows)
            if sum(map(len, kept[1:])) > max(rows, len(kept[0])):
                kept = [latest(kept)]
    return latest(kept)


def latest(batches: list[pa.RecordBatch]) -> pa.RecordBatch | None:
    """The last row of each id among some batches, oldest batch first."""
    if not batches:
        return None
    table = pa.Table.from_batches([batch.replace_schema_metadata() for batch in batches])
    last = {key: position for position, key in enumerate(table["id"].to_pylist())}
    return table.take(pa.array(sorted(last.values()), pa.int64())).combine_chunks().to_batches()[0]


def seeds(bundle: Bundle, side: str, partition: int, homes: RowPartitions, size: int) -> Iterator[pa.RecordBatch]:
    """The bundle's rows whose ids are at home in a partition, those of ``size`` ids of the table at a time."""
    table = bundle.queries if side == "query" else bundle.items
    item_ids = np.array(bundle.items.ids, object)
    for start in range(0, len(table.ids), size):
        rows = np.arange(start, min(start + size, len(table.ids)))
        rows = rows[homes(rows, table.ids) == partition]
        if not len(rows):
            continue
        values = Rows(
            rows, table.a[rows], table.folded[rows], table.clicks[rows], table.counters[rows], table.last_click[rows],
            table.history[rows] if side == "query" else table.vectors[rows],
        )  # fmt: skip
        every = np.arange(len(rows))
        if side == "query":
            yield query_stage.changelog(values, table.ids, item_ids, every)
        else:
            yield item_stage.changelog(values, table.ids, every)
