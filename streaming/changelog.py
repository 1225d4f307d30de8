"""Reading the packed topics back: whole partitions for a restart, or forever for whoever follows them."""

import logging
import time
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import pyarrow as pa
from kafka import TopicPartition

from streaming.clients import close_quietly, free_consumer, partitions_of
from streaming.config import KafkaConnection
from streaming.topics import unpack

log = logging.getLogger(__name__)
NEXT = "next"
"""Header of a changelog record: the offset of the stage's input up to which (exclusive) the record accounts."""
ARRIVED = "arrived"
"""Header of signals and of what comes of them: when (ms) the broker took the oldest of the clicks behind a record."""
DRIFT = "drift"
"""Header of a record in which only vectors are new, since only time has passed: the Feast sink has no use for it."""
_STALLED_S = 30  # a worker's transaction ends within ten seconds, or is aborted (``transaction_timeout_ms``)


class Change(NamedTuple):
    """Rows of one record, and what its headers say: see :data:`NEXT`, :data:`DRIFT`, :data:`ARRIVED`; 0 is not said."""

    partition: int
    next: int
    rows: pa.RecordBatch
    drift: bool
    arrived: int = 0


def changes(records: Iterable, bundle: str) -> Iterator[Change]:
    """The records that hold rows of a bundle. Others lie in another vector space, or are not ours at all."""
    for record in records:
        try:
            packed = unpack(record.value)
        except (pa.ArrowInvalid, TypeError, StopIteration):
            log.warning(
                "unreadable_record topic=%s partition=%d offset=%d", record.topic, record.partition, record.offset
            )
            continue
        if packed.bundle == bundle:
            headers = dict(record.headers)
            yield Change(
                record.partition, int(headers.get(NEXT, 0)), packed.rows, DRIFT in headers, int(headers.get(ARRIVED, 0))
            )


def read_committed(connection: KafkaConnection, partitions: list[TopicPartition], bundle: str) -> Iterator[Change]:
    """All committed rows of a bundle in some partitions, oldest first.

    It reads up to the end that these partitions have now, open transactions included, and so waits for those to end:
    they may be of a worker that was taken for dead, and that commits after all.

    Raises:
        TimeoutError: nothing could be read for half a minute, though not all had been.
    """
    ends_consumer = free_consumer(connection, committed=False)
    try:
        ends = ends_consumer.end_offsets(partitions)
    finally:
        close_quietly(ends_consumer)
    consumer = free_consumer(connection, fetch_max_wait_ms=20)
    try:
        consumer.assign(partitions)
        consumer.seek_to_beginning(*partitions)
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
    """The records of a partition from ``start`` (or the oldest that is left) to ``stop`` (exclusive), in batches."""
    consumer = free_consumer(connection, fetch_max_wait_ms=20, max_poll_records=5_000)
    try:
        consumer.assign([partition])
        start = max(start, consumer.beginning_offsets([partition])[partition])
        consumer.seek(partition, start)
        while start < stop and (consumer.position(partition) or 0) < stop:
            for records in consumer.poll(timeout_ms=100).values():
                yield [record for record in records if record.offset < stop]
    finally:
        close_quietly(consumer)


class Changelog:
    """Reads a whole topic from its beginning, then whatever comes: for readers that need every partition.

    Reading twice is harmless, since the values are absolute; hence no group and no offsets.
    """

    def __init__(self, connection: KafkaConnection, topic: str, bundle: str):
        self._bundle = bundle
        self._consumer = free_consumer(connection, max_poll_records=200)
        self._partitions = partitions_of(self._consumer, topic)
        self._consumer.assign(self._partitions)
        self._consumer.seek_to_beginning(*self._partitions)
        self._goal = self._consumer.end_offsets(self._partitions)

    def poll(self, timeout_ms: int = 0) -> Iterator[pa.RecordBatch]:
        """Rows that have come since."""
        for records in self._consumer.poll(timeout_ms=timeout_ms).values():
            for change in changes(records, self._bundle):
                yield change.rows

    @property
    def caught_up(self) -> bool:
        """Whether everything has been read that was there at the start."""
        return all((self._consumer.position(p) or 0) >= self._goal[p] for p in self._partitions)

    def close(self) -> None:
        close_quietly(self._consumer)
