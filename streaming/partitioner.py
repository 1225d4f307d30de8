"""Kafka's default partitioner: which partition a key belongs to."""

import numpy as np
from kafka.partitioner.default import murmur2

Array = np.ndarray


def partition_of(key: str, count: int) -> int:
    """The partition, of ``count``, that a record keyed by ``key`` goes to."""
    return (murmur2(key.encode()) & 0x7FFFFFFF) % count


class RowPartitions:
    """The partitions of rows of some growing table of ids, each worked out once, when it is first asked for."""

    def __init__(self, count: int):
        self.count = count
        self._known = np.empty(0, np.int16)

    def __call__(self, rows: Array, ids: Array | list[str]) -> Array:
        """Partitions [N] of some rows; ``ids`` names all rows."""
        if len(ids) > len(self._known):
            grown = np.full(len(ids) * 5 // 4, -1, np.int16)
            grown[: len(self._known)] = self._known
            self._known = grown
        for row in np.unique(rows[self._known[rows] < 0]).tolist():
            self._known[row] = partition_of(ids[row], self.count)
        return self._known[rows].astype(np.int64)
