"""Some of the rows of an index: what a filter leaves."""

from weakref import ReferenceType, ref

import numpy as np

from serving.index.lists import InvertedLists

Array = np.ndarray
_KEPT = 65_536  # rows of a small subset are kept as they are, too


class Subset:
    """A set of rows, made once and searched in often.

    size: how many rows · bits: one a row, packed from the lowest, as Faiss reads them.
    """

    def __init__(self, rows: Array):
        """Of rows [m], none of them twice."""
        self.size = len(rows)
        mask = np.zeros(int(rows.max(initial=-1)) + 1, bool)
        mask[rows] = True
        self.bits = np.packbits(mask, bitorder="little")
        self._rows = np.sort(rows) if len(rows) <= _KEPT else None
        self._counts: tuple[ReferenceType[InvertedLists], int, Array] | None = None

    def rows(self) -> Array:
        """[m] ascending."""
        if self._rows is not None:
            return self._rows
        return np.flatnonzero(np.unpackbits(self.bits, bitorder="little"))

    def holds(self, rows: Array) -> Array:
        """[N] bool: which of some rows are in it."""
        within = rows < 8 * len(self.bits)
        inside = np.zeros(len(rows), bool)
        some = rows[within]
        inside[within] = (self.bits[some >> 3] >> (some & 7).astype(np.uint8)) & 1
        return inside

    def by_list(self, lists: InvertedLists) -> Array:
        """[lists] how many of its rows each list holds. Nobody may write to the lists meanwhile."""
        seen, moves = lists.moves.rows, None
        if self._counts is not None and self._counts[0]() is lists and seen - self._counts[1] <= self.size:
            moves = lists.moves.since(self._counts[1])
        if self._counts is None or moves is None:  # the first search, or more has moved than there is to count
            rows = self.rows()
            counts = _tally(lists.list_of[rows[rows < len(lists.list_of)]], lists)
        else:
            counts = self._counts[2]
            if moves:
                rows, before, after = (np.concatenate(parts) for parts in zip(*moves, strict=True))
                mine = self.holds(rows)
                counts = counts + _tally(after[mine], lists) - _tally(before[mine], lists)
        self._counts = ref(lists), seen, counts
        return counts


def _tally(listed: Array, lists: InvertedLists) -> Array:
    return np.bincount(listed[listed >= 0], minlength=len(lists))
