"""One side's augmented vectors by row: the table that :func:`training.amm.fold` reads and writes."""

from dataclasses import dataclass

import numpy as np

from training.amm import fold

Array = np.ndarray


@dataclass(frozen=True)
class Snapshot:
    """What a table held of some rows at one moment: rows [K], in order; values [K, M·d]."""

    rows: Array
    values: Array

    def read(self, rows: Array) -> Array:
        """[N] of these rows → [N, M·d]."""
        return self.values[np.searchsorted(self.rows, rows)]


class AugmentedTable:
    """a [n+1, M, d] and how many clicks each row has folded, all zero at first.

    Row r+1 is row r of the side's state, as in the tower's id embedding. Row 0 stands for every unknown id and stays
    zero.
    """

    def __init__(self, size: int, memories: tuple[float, ...], dim: int):
        self.memories = memories
        self.width = len(memories) * dim
        self.a = np.zeros((size + 1, len(memories), dim), np.float32)
        self.folded = np.zeros(size + 1, np.int64)

    def read(self, rows: Array) -> Array:
        """[N] rows → [N, M·d], as a tower takes them."""
        return self.a[rows].reshape(len(rows), self.width)

    def snapshot(self, rows: Array) -> Snapshot:
        """Of these rows, as they are now."""
        rows = np.unique(rows)
        return Snapshot(rows, self.read(rows))

    def fold(self, rows: Array, targets: Array) -> Array:
        """Fold N clicks, in order, and return what each row held just before its click: [N, M·d].

        Args:
            rows: [N] the key's row, repeated keys welcome.
            targets: [N, d] the other tower's output.
        """
        keys, groups = np.unique(rows, return_inverse=True)
        folded = fold(self.a[keys], self.folded[keys], groups, targets, self.memories)
        self.a[keys] = folded.after
        self.folded[keys] += np.bincount(groups, minlength=len(keys))
        self.a[0], self.folded[0] = 0.0, 0
        return folded.before.reshape(len(rows), self.width)
