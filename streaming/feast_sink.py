"""The Feast sink: what the stages have committed, into the online store.

It follows the changelogs behind the stages, so an online store that is slow or away delays nobody. Values are absolute:
after an outage, or a crash between a write and its offsets, it writes some of them again, to no effect.
"""

import itertools
import logging
import threading
from collections.abc import Iterable, Iterator
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
from streaming.partitioner import partition_of
from streaming.partitions import Partitions
from streaming.state import Rows
from streaming.topics import ITEM_VECTORS, QUERY_VECTORS
from streaming.worker import WorkerError
from training.bundle import Bundle

if TYPE_CHECKING:
    from feast import FeatureStore

log = logging.getLogger(__name__)
_SIDES = {QUERY_VECTORS: "query", ITEM_VECTORS: "item"}


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
        """Set once the first partitions are seeded."""
        self._writer = OnlineWriter(store, bundle.version)
        self._partitions = Partitions()
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
        self._partitions = Partitions()
        try:
            self._consumer = self._partitions.consumer = group_consumer(
                self.config, self.group, _SIDES, self.name, listener=self._partitions, max_poll_records=64
            )
            while not self.stop.is_set():
                polled = self._consumer.poll(timeout_ms=self.config.poll_ms)
                batches = {p: records for p, records in polled.items() if p in self._partitions.ready}
                if self._partitions.new:
                    self._prepare(list(self._partitions.new))
                if batches:
                    self._follow(batches)
        finally:
            if self._consumer is not None:
                close_quietly(self._consumer, 2)
                self._consumer = None

    def _prepare(self, partitions: list[TopicPartition]) -> None:
        for partition in sorted(partitions):
            committed = self._consumer.committed(partition, metadata=True)
            if committed is None or committed.metadata != self.bundle.version:
                end = self._take_over(partition)
                if end is None:
                    return
                self._consumer.seek(partition, end)
                self._commit({partition: end})
            self._partitions.new.discard(partition)
            if partition in self._consumer.assignment():
                self._partitions.ready.add(partition)
                self._consumer.resume(partition)
        self.ready.set()

    def _take_over(self, partition: TopicPartition) -> int | None:
        """Write all that the bundle knows of a partition's ids; returns how far that goes, None if told to stop.

        Ids that were clicked since the cut come from the changelog, the others from the bundle: never an older value
        first, which whoever waits for a click would take for news.
        """
        topic, side, size = partition.topic, _SIDES[partition.topic], self.config.sink_rows
        end = self._consumer.end_offsets([partition])[partition]
        clicked: set[str] = set()
        rows = compacted(read_committed(self.config, [partition], self.bundle.version))
        batches = [] if rows is None else [rows.slice(start, size) for start in range(0, len(rows), size)]
        for batch in batches:
            clicked.update(batch["id"].to_pylist())
        count = len(self._consumer.partitions_for_topic(topic))
        for batch in itertools.chain(batches, seeds(self.bundle, side, partition.partition, count, size, clicked)):
            if not self._write(side, batch):
                return None
        return end

    def _follow(self, batches: dict[TopicPartition, list]) -> None:
        for topic, side in _SIDES.items():
            records = [record for partition, batch in batches.items() if partition.topic == topic for record in batch]
            rows = latest([c.rows for c in changes(records, self.bundle.version) if not c.drift])
            for start in range(0, len(rows) if rows is not None else 0, self.config.sink_rows):
                if not self._write(side, rows.slice(start, self.config.sink_rows)):
                    return
        self._commit({partition: batch[-1].offset + 1 for partition, batch in batches.items()})

    def _commit(self, offsets: dict[TopicPartition, int]) -> None:
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


def seeds(
    bundle: Bundle, side: str, partition: int, partitions: int, size: int, without: set[str]
) -> Iterator[pa.RecordBatch]:
    """The bundle's rows whose ids Kafka's default partitioner puts into a partition, ``size`` at a time, but some."""
    table = bundle.queries if side == "query" else bundle.items
    mine = np.array(
        [row for row, key in enumerate(table.ids) if key not in without and partition_of(key, partitions) == partition],
        np.int64,
    )
    item_ids = np.array(bundle.items.ids, object)
    for start in range(0, len(mine), size):
        rows = mine[start : start + size]
        values = Rows(
            rows, table.a[rows], table.folded[rows], table.clicks[rows], table.counters[rows], table.last_click[rows],
            table.history[rows] if side == "query" else table.vectors[rows],
        )  # fmt: skip
        every = np.arange(len(rows))
        if side == "query":
            yield query_stage.changelog(values, table.ids, item_ids, every)
        else:
            yield item_stage.changelog(values, table.ids, every)
