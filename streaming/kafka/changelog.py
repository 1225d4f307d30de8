"""Reading the packed topics back: whole partitions for a restart, or forever for whoever follows them."""

import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import pyarrow as pa
from kafka import TopicPartition

from model.settings.updater import KafkaConnection
from streaming.kafka.clients import close_quietly, free_consumer, partitions_of
from streaming.kafka.records import ITEM_STATE, QUERY_STATE, SIGNALS, unpack

log = logging.getLogger(__name__)
Offsets = dict[TopicPartition, int]
NEXT = "next"
"""Header of a changelog record: the offset of the stage's input up to which (exclusive) the record accounts, and the id
of the input topic: one that is made anew begins at 0 again."""
ARRIVED = "arrived"
"""Header of signals and of what comes of them: when (ms) the broker took the oldest of the clicks behind a record."""
DRIFT = "drift"
"""Header of a record in which only vectors are new, since only time has passed: the Feast sink has no use for it."""
_STALLED_S = 30  # a worker's transaction ends within ten seconds, or is aborted (``transaction_timeout_ms``)


class Change(NamedTuple):
    """Rows of one record, its headers, and what they say: see :data:`NEXT`, :data:`DRIFT`, :data:`ARRIVED`; 0 is not
    said."""

    partition: int
    next: int
    source: str
    rows: pa.RecordBatch
    drift: bool
    arrived: int = 0
    offset: int = 0
    headers: Sequence[tuple[str, bytes]] = ()


def changes(records: Iterable, bundle: str) -> Iterator[Change]:
    """The records that hold rows of a bundle. Others lie in another vector space; what is not ours at all is logged."""
    ours, unreadable = split(records, bundle)
    for record in unreadable:
        log.warning("unreadable_record topic=%s partition=%d offset=%d", record.topic, record.partition, record.offset)
    yield from ours


def split(records: Iterable, bundle: str) -> tuple[list[Change], list[Any]]:
    """The changes of a bundle among some records, and the records that no writer of ours has written.

    Raises:
        UnknownFormat: a record of the bundle was written by another release: left out, its clicks would be lost.
    """
    ours, unreadable = [], []
    for record in records:
        try:
            packed = unpack(record.value)
        except (pa.ArrowInvalid, TypeError, StopIteration):
            unreadable.append(record)
            continue
        if packed.bundle != bundle:
            continue
        packed.known(record)
        names = set(packed.rows.schema.names)
        if not any(names.issuperset(schema.names) for schema in (SIGNALS, QUERY_STATE, ITEM_STATE)):
            unreadable.append(record)
            continue
        headers = dict(record.headers)
        next_, _, source = headers.get(NEXT, b"0").decode().partition(" ")
        arrived = int(headers.get(ARRIVED, 0))
        drift, at = DRIFT in headers, record.offset
        ours.append(Change(record.partition, int(next_), source, packed.rows, drift, arrived, at, record.headers))
    return ours, unreadable


class ChangelogLost(RuntimeError):
    """Records of a changelog are gone that its bundle needs. The message says which and what to do."""


def read_committed(
    connection: KafkaConnection, partitions: list[TopicPartition], bundle: str, starts: Offsets | None = None
) -> Iterator[Change]:
    """All committed rows of a bundle in some partitions, oldest first.

    It reads up to the end that these partitions have now, open transactions included, and so waits for those to end:
    they may be of a worker that was taken for dead, and that commits after all.

    Args:
        starts: Where the bundle's rows begin; of other partitions, at the oldest record.

    Raises:
        TimeoutError: nothing could be read for half a minute, though not all had been.
        ChangelogLost: a partition begins after the bundle's rows do.
    """
    ends_consumer = free_consumer(connection, committed=False)
    try:
        ends = ends_consumer.end_offsets(partitions)
        begins = ends_consumer.beginning_offsets(partitions)
    finally:
        close_quietly(ends_consumer)
    for partition, start in (starts or {}).items():
        if begins.get(partition, 0) > start:
            raise ChangelogLost(
                f"{partition.topic}-{partition.partition} begins at {begins[partition]}, and the rows of {bundle} at "
                f"{start}: Kafka has deleted some. Put another bundle into service, or publish this one again under "
                "another name; the topic must not have retention (retention.ms = -1)"
            )
    consumer = free_consumer(connection, fetch_max_wait_ms=20)
    try:
        consumer.assign(partitions)
        for partition in partitions:
            consumer.seek(partition, (starts or begins).get(partition, begins[partition]))
        told = moved = time.monotonic()
        at: dict[TopicPartition, int] = {}
        while behind := {p: offset for p in partitions if (offset := consumer.position(p) or 0) < ends[p]}:
            for records in consumer.poll(timeout_ms=100).values():
                yield from changes(records, bundle)
            now = time.monotonic()
            if behind != at:
                moved, at = now, behind
            elif now - moved > _STALLED_S:
                raise TimeoutError(_stalled(connection, behind, ends))
            if now - told > 5:
                told = now
                log.info("restoring partitions=%s", ",".join(f"{p.topic}-{p.partition}" for p in behind))
    finally:
        close_quietly(consumer)


def _stalled(connection: KafkaConnection, behind: dict[TopicPartition, int], ends: dict[TopicPartition, int]) -> str:
    where = ", ".join(f"{p.topic}-{p.partition} at {offset} of {ends[p]}" for p, offset in behind.items())
    return (
        f"no committed record came within {_STALLED_S} s: {where}; if a transaction hangs there, as after a broker's "
        f"disk failed, kafka-transactions.sh --bootstrap-server {connection.bootstrap} find-hanging names it and abort "
        "ends it"
    )


def read_range(connection: KafkaConnection, partition: TopicPartition, start: int, stop: int) -> Iterator[list]:
    """The records of a partition from ``start`` (or the oldest that is left) to ``stop`` (exclusive), in batches.

    A topic that ends before ``stop`` was made anew, or has lost its end: what there is of it is all.

    Raises:
        TimeoutError: nothing could be read for half a minute, though not all had been.
    """
    consumer = free_consumer(connection, fetch_max_wait_ms=20, max_poll_records=5_000)
    try:
        consumer.assign([partition])
        start = max(start, consumer.beginning_offsets([partition])[partition])
        stop = min(stop, consumer.end_offsets([partition])[partition])
        consumer.seek(partition, start)
        moved, at = time.monotonic(), start
        while start < stop and (now_at := consumer.position(partition) or 0) < stop:
            if now_at != at:
                moved, at = time.monotonic(), now_at
            elif time.monotonic() - moved > _STALLED_S:
                raise TimeoutError(_stalled(connection, {partition: at}, {partition: stop}))
            for records in consumer.poll(timeout_ms=100).values():
                yield [record for record in records if record.offset < stop]
    finally:
        close_quietly(consumer)


class Changelog:
    """Reads a bundle's part of a topic, then whatever comes: for readers that need every partition.

    Reading twice is harmless, since the values are absolute; hence no group and no offsets.

    Args:
        starts: Where the bundle's rows begin; of other partitions, at the oldest record.
    """

    def __init__(self, connection: KafkaConnection, topic: str, bundle: str, starts: Offsets | None = None):
        self._bundle = bundle
        self._consumer = free_consumer(connection, max_poll_records=200)
        self._partitions = partitions_of(self._consumer, topic)
        self._consumer.assign(self._partitions)
        begins = self._consumer.beginning_offsets(self._partitions)
        for partition, begin in begins.items():
            self._consumer.seek(partition, max(begin, (starts or {}).get(partition, 0)))
        self._goal = self._consumer.end_offsets(self._partitions)

    def poll(self, timeout_ms: int = 0) -> Iterator[pa.RecordBatch]:
        """Rows that have come since."""
        for records in self._consumer.poll(timeout_ms=timeout_ms).values():
            for change in changes(records, self._bundle):
                if len(change.rows):
                    yield change.rows

    @property
    def caught_up(self) -> bool:
        """Whether everything has been read that was there at the start."""
        return all((self._consumer.position(p) or 0) >= self._goal[p] for p in self._partitions)

    def close(self) -> None:
        close_quietly(self._consumer)
