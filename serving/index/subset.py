"""Some of the rows of an index: what a filter leaves."""

import time

import numpy as np

from serving.index.lists import InvertedLists

Array = np.ndarray
_KEPT = 65_536  # rows of a small subset are kept as they are, too
_COUNTED_S = 0.5  # rows that change their list are found in it after this time at most


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
        self._counts: tuple[InvertedLists, float, Array] | None = None

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
        """[lists] how many of its rows each list holds, as of half a second ago at most."""
        now = time.monotonic()
        if self._counts is None or self._counts[0] is not lists or now - self._counts[1] > _COUNTED_S:
            rows = self.rows()
            listed = lists.list_of[rows[rows < len(lists.list_of)]]
            self._counts = lists, now, np.bincount(listed[listed >= 0], minlength=len(lists))
        return self._counts[2]
