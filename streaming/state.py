"""One side's state in arrays: what the stream knows of every query, or of every item.

It starts as the bundle's table (mapped by row), grows by the ids that training did not see, and changes only by
:meth:`SideState.apply` after a commit. A batch computes the new values of the rows that it touches as a
:class:`Rows`; if its transaction fails they are dropped, and there is nothing to undo.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from streaming.profiles import Profiles
from training.bundle import SideTable, writable
from training.features import InputSpec, Profile

Array = np.ndarray
_FAST = ("a", "folded", "clicks", "counters", "last_click")


@dataclass(frozen=True)
class Rows:
    """New values of G rows of a state; ``rows`` [G] says which.

    ``extra``: the history ring, or the vectors · ``as_of``: [G] ms, the moment that the vectors are of (items).
    """

    rows: Array
    a: Array
    folded: Array
    clicks: Array
    counters: Array
    last_click: Array
    extra: Array
    as_of: Array | None = None


class SideState:
    """Growable arrays of one side.

    Args:
        table: The bundle's table of this side.
        spec: What this side's tower reads.
        profiles: Where the profiles of ids come from that the bundle does not know.
        extra: The last column: ``history`` for queries, ``vectors`` for items.
    """

    def __init__(self, table: SideTable, spec: InputSpec, profiles: Profiles, extra: str):
        self.spec, self.profiles, self.extra = spec, profiles, extra
        self.known = self.size = len(table.ids)
        self.ids: list[str] = list(table.ids)
        self._rows = {key: row for row, key in enumerate(self.ids)}
        self._columns = {name: writable(getattr(table, name)) for name in ("codes", "numbers", "times", *_FAST, extra)}
        if extra == "vectors":
            self._columns["as_of"] = np.zeros(self.size, np.int64)
        self._unprofiled: set[int] = set()

    def __getitem__(self, column: str) -> Array:
        return self._columns[column][: self.size]

    @property
    def bytes(self) -> int:
        """Memory of the arrays; ids come on top."""
        return sum(column.nbytes for column in self._columns.values())

    def rows(self, ids: list[str]) -> Array:
        """Rows [N] of some ids; ids that are new get a row of nothing, which is harmless if the batch then fails."""
        before = self.size
        rows = np.empty(len(ids), np.int64)
        for k, key in enumerate(ids):
            row = self._rows.get(key)
            if row is None:
                row = self._rows[key] = len(self.ids)
                self.ids.append(key)
            rows[k] = row
        if len(self.ids) > before:
            self._grow(len(self.ids))
            self._unprofiled.update(range(before, self.size))
        return rows

    def _grow(self, size: int) -> None:
        for name, column in self._columns.items():
            if size > len(column):
                larger = np.zeros((max(size, len(column) * 3 // 2), *column.shape[1:]), column.dtype)
                larger[: len(column)] = column
                if name == "history":
                    larger[len(column) :] = -1
                self._columns[name] = larger
        self.size = size

    def fill_profiles(self, rows: Array) -> None:
        """Look up the profiles of those rows that are still without one; an unavailable store is asked again later."""
        missing = [row for row in rows.tolist() if row in self._unprofiled] if self._unprofiled else []
        if not missing:
            return
        found = self.profiles.fetch([self.ids[row] for row in missing])
        if found is not None:
            for name in ("codes", "numbers", "times"):
                self[name][missing] = getattr(found, name)
            self._unprofiled.difference_update(missing)

    def profile(self, rows: Array) -> Profile:
        return Profile(self["codes"][rows], self["numbers"][rows], self["times"][rows])

    def tower_rows(self, rows: Array) -> Array:
        """Rows of the tower's id embedding: an id that training did not see has the shared row 0."""
        return np.where(rows < self.known, rows + 1, 0)

    def apply(self, new: Rows) -> None:
        """Take over the values of a committed batch."""
        for name in _FAST:
            self[name][new.rows] = getattr(new, name)
        self[self.extra][new.rows] = new.extra
        if new.as_of is not None:
            self["as_of"][new.rows] = new.as_of


def flat(column: pa.Array, width: int, dtype: type = np.float32) -> Array:
    """[N, width] of a list column whose rows are all that wide.

    Raises:
        ValueError: they are not.
    """
    return column.flatten().to_numpy(zero_copy_only=False).astype(dtype, copy=False).reshape(len(column), width)


def lists(values: Array) -> pa.ListArray:
    """A list column of [N, ...] float32."""
    values = np.ascontiguousarray(values, np.float32).reshape(len(values), -1)
    offsets = np.arange(len(values) + 1, dtype=np.int32) * values.shape[1]
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values.ravel()))
