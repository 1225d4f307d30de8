"""What is clicked most lately, ready to be answered: for all items and for those that a filter leaves."""

import threading
from weakref import WeakKeyDictionary

import numpy as np

from serving.index.latest_writes import LatestWrites
from serving.index.lists import best
from serving.index.search import Hits, best_rows
from serving.index.subset import Subset

Array = np.ndarray
COLD = -1e6  # heat of what may be shown and was never clicked: below all that was
_HEAD = 2_000  # rows that are kept in order


class _Head:
    """The hottest of some rows, hottest first. No row outside it is hotter than ``floor``."""

    def __init__(self, heat: Array, only: Subset | None):
        rows = np.flatnonzero(np.isfinite(heat)) if only is None else only.rows()
        rows = rows[rows < len(heat)]
        self.rows = rows[best(heat[rows], _HEAD)]
        self.floor = -np.inf if len(rows) <= _HEAD else float(heat[self.rows].min())
        self.sort(heat)

    def sort(self, heat: Array) -> None:
        self.rows, self.heat = best_rows(self.rows, heat[self.rows], _HEAD)

    def update(self, changed: Array, heat: Array) -> bool:
        """Take over rows whose heat has changed; False if so many have cooled down that it must be made anew."""
        risen = changed[heat[changed] > self.floor]
        if not len(risen) and not np.isin(changed, self.rows).any():
            return True
        self.rows = np.union1d(self.rows, risen)
        self.rows = self.rows[heat[self.rows] >= self.floor]
        if len(self.rows) > _HEAD:
            self.floor = float(np.sort(heat[self.rows])[-_HEAD])
        self.sort(heat)
        return self.floor == -np.inf or len(self.rows) > _HEAD // 2


class Popularity:
    """Keeps the order of rows by their heat; one thread writes, any number read.

    Args:
        heat: [n] log2 of each row's decayed clicks, at any one moment; COLD: never clicked; −inf: not to be shown.
    """

    def __init__(self, heat: Array):
        self._heat = heat.astype(np.float64)
        self._lock = threading.Lock()
        self._all = _Head(self._heat, None)
        self._heads: WeakKeyDictionary[Subset, tuple[_Head, int]] = WeakKeyDictionary()
        """Of filters: their heads, and up to where those have taken over the changes."""
        self._changes: LatestWrites[Array] = LatestWrites()

    def put(self, rows: Array, heat: Array) -> None:
        """Set the heat of distinct rows, known or new."""
        with self._lock:
            if len(rows) and rows.max() >= len(self._heat):
                room = np.full(int(rows.max()) * 9 // 8 + 1_024 - len(self._heat), -np.inf)
                self._heat = np.concatenate([self._heat, room])
            changed = self._heat[rows] != heat
            rows = rows[changed]
            self._heat[rows] = heat[changed]
            if not len(rows):
                return
            if not self._all.update(rows, self._heat):
                self._all = _Head(self._heat, None)
            self._changes.add(len(rows), rows)

    def top(self, n: int, exclude: Array | None = None, only: Subset | None = None) -> Hits:
        """The n hottest rows, and scores: the hottest one's is 1, and 0 is of what was never clicked."""
        with self._lock:
            head = self._all if only is None else self._of(only)
            rows, heat, whole = head.rows, head.heat, head.floor == -np.inf
        if exclude is not None and len(exclude):
            kept = ~np.isin(rows, exclude)
            rows, heat = rows[kept], heat[kept]
            if len(rows) < n and not whole:
                rows, heat = self._beyond(n, exclude, only)
        rows, heat = rows[:n], heat[:n]
        return rows, _scores(heat, heat[:1])

    def ratio(self, rows: Array, to: Array) -> Array:
        """[N] how hot rows are beside one row [1]."""
        return _scores(self._heat[rows], self._heat[to])

    def _of(self, only: Subset) -> _Head:
        """A filter's head, as of now."""
        head, seen = self._heads.get(only, (None, 0))
        if head is not None and seen < self._changes.rows:
            changes = self._changes.since(seen)
            rows = None if changes is None else np.unique(np.concatenate(changes))
            if rows is None or not head.update(rows[only.holds(rows)], self._heat):
                head = None
        head = head or _Head(self._heat, only)
        self._heads[only] = head, self._changes.rows
        return head

    def _beyond(self, n: int, exclude: Array, only: Subset | None) -> Hits:
        heat = self._heat.copy()
        heat[exclude[exclude < len(heat)]] = -np.inf
        rows = np.arange(len(heat)) if only is None else only.rows()
        rows = rows[rows < len(heat)]
        return best_rows(rows, heat[rows], n)


def _scores(heat: Array, to: Array) -> Array:
    return np.where(heat > COLD, np.exp2(np.minimum(heat - to, 1_000)), 0.0) if len(heat) else heat
