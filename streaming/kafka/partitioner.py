"""The partitions of rows of a table of ids."""

import numpy as np

from model.ids import Ids
from model.partitioner import Partitioner, partitions_of

Array = np.ndarray


class RowPartitions:
    """The partitions of rows of some growing table of ids, each worked out once, when it is first asked for."""

    def __init__(self, count: int, partitioner: Partitioner = "murmur2"):
        self.count, self.partitioner = count, partitioner
        self._known = np.empty(0, np.int16)

    def __call__(self, rows: Array, ids: Ids) -> Array:
        """Partitions [N] of some rows; ``ids`` names all rows."""
        if len(ids) > len(self._known):
            grown = np.full(len(ids) * 5 // 4, -1, np.int16)
            grown[: len(self._known)] = self._known
            self._known = grown
        new = np.unique(rows[self._known[rows] < 0])
        self._known[new] = partitions_of(ids.take(new).to_pylist(), self.count, self.partitioner)
        return self._known[rows].astype(np.int64)
