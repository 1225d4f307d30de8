"""Rows into records: each row in its partition, many rows a record, no record longer than a broker takes."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from streaming.kafka.changelog import ARRIVED, DRIFT, NEXT
from streaming.kafka.records import pack
from streaming.kafka.transactions import Message

Array = np.ndarray
Headers = Callable[[int], list[tuple[str, bytes]]]
"""A partition → the headers of its records."""


def no_headers(_: int) -> list[tuple[str, bytes]]:
    return []


def drift_header(_: int) -> list[tuple[str, bytes]]:
    return [(DRIFT, b"")]


def arrived_header(arrived: int) -> Headers:
    """When the clicks behind these records arrived (ms)."""
    return lambda _: [(ARRIVED, str(arrived).encode())]


def next_value(offset: int, source_id: str) -> bytes:
    return f"{offset} {source_id}".encode()


def next_header(records: list[Any], arrived: int, source_id: str) -> Headers:
    """The headers that say up to where a partition's input is accounted for, once these records are, and its age."""
    nexts, told = ends(records), arrived_header(arrived)
    return lambda partition: [(NEXT, next_value(nexts[partition], source_id)), *told(partition)]


def ends(records: list[Any]) -> dict[int, int]:
    """For each partition among some records, in order, the offset after its last one."""
    return {record.partition: record.offset + 1 for record in records}


class Packer:
    """Packs rows of one bundle.

    Args:
        bundle: The version that the records name.
        limit: Bytes that a record may have. A single row that is longer is sent as it is: ids are bounded, so it
            cannot outgrow what a broker takes.
    """

    def __init__(self, bundle: str, limit: int):
        self._bundle, self._limit = bundle, limit

    def __call__(
        self, topic: str, partitions: Array, rows: Callable[[Array], pa.RecordBatch], headers: Headers = no_headers
    ) -> list[Message]:
        """Messages that hold rows 0…N−1 of something.

        Args:
            partitions: [N] the partition of each row.
            rows: Makes a batch of the chosen rows.
            headers: The headers of a partition's records.
        """
        return [
            Message(topic, partition, value, None, headers(partition))
            for partition in np.unique(partitions).tolist()
            for value in self._split(rows, np.flatnonzero(partitions == partition))
        ]

    def _split(self, rows: Callable[[Array], pa.RecordBatch], chosen: Array) -> Iterator[bytes]:
        value = pack(rows(chosen), self._bundle)
        if len(value) <= self._limit or len(chosen) == 1:
            yield value
        else:
            middle = len(chosen) // 2
            yield from self._split(rows, chosen[:middle])
            yield from self._split(rows, chosen[middle:])
