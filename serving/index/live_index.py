"""The live index: maximum inner product search over vectors that change while it searches.

The truth is one matrix of the current vectors, row = item. Small corpora are scored whole, which is exact. Large ones
have inverted lists over it: HNSW cannot remove, and re-adding an id there leaves the old vector findable, while a row
is taken out of a list before it is put into another.
"""

import threading
from collections.abc import Iterator, Sequence

import numpy as np

from model.settings.serving import IndexConfig
from serving.index.calibration import Calibration, Probes
from serving.index.lists import InvertedLists, list_count, with_spare
from serving.index.rwlock import ReadWriteLock
from serving.index.search import Hits, best_rows, search_lists
from serving.index.subset import Subset
from serving.index.vectors import LARGEST, GrowingMatrix, searchable

Array = np.ndarray
_SCORED = 1 << 17  # a subset of so many numbers at most is scored row by row: that is cheaper than visiting lists
_COPY = 65_536  # rows copied at a time while lists are rebuilt
_PROBES = Probes(32, 0.5)  # where there are no queries to calibrate with
_QUERIES = 128  # to calibrate with


class LiveIndex:
    """Rows with vectors, safe under threads: upsert, delete, hide, search. What has returned is findable.

    Rows are small non-negative integers that the caller hands out (an item's row in its table), never reused.
    """

    def __init__(self, vectors: Array, config: IndexConfig | None = None, queries: Array | None = None):
        """Start with rows 0…n−1 of ``vectors`` [n, d] float32, for instance a bundle's.

        Args:
            vectors: Copied; of a file that is mapped into memory, only what is written to. Rows that :func:`searchable`
                says no of have none.
            queries: [Q, d] typical queries, on a sample of which lists are calibrated to the recall that is promised.
        """
        self.config = config or IndexConfig()
        self._queries = None if queries is None or not len(queries) else sample(queries, _QUERIES)
        self._vectors = GrowingMatrix(vectors)
        self._known = searchable(vectors)  # rows that have a vector
        self._hidden = np.zeros(len(vectors), bool)
        self._moved = np.zeros(len(vectors), bool)  # rows written since the lists were built
        self._changed = 0  # how many those are
        self._calibrated = 0  # of them, those that had been written at the last calibration
        self._size = int(np.count_nonzero(self._known))
        self._lock = ReadWriteLock()
        self._rebuilding = threading.Lock()
        self._touched: list[Array] | None = None  # rows written since a rebuild began
        self._built_for = 0
        self._lists: InvertedLists | None = None
        self._probes = Probes(self.config.probes) if self.config.probes else _PROBES
        self._thread: threading.Thread | None = None
        if self._wants_lists():
            self.rebuild()

    def __len__(self) -> int:
        """How many rows can be found."""
        return self._size

    @property
    def dimension(self) -> int:
        return self._vectors.dimension

    @property
    def kind(self) -> str:
        return "exact" if self._lists is None else "ivf"

    @property
    def lists(self) -> InvertedLists | None:
        """The lists that are searched now; None while search is exact. To look at: it has no lock."""
        return self._lists

    @property
    def probes(self) -> int | None:
        """Lists that a search for 100 rows visits; None while search is exact."""
        return None if self._lists is None else min(self._probes(100), len(self._lists))

    @property
    def rebuilding(self) -> bool:
        return self._touched is not None

    def upsert(self, rows: Array, vectors: Array) -> None:
        """Insert or replace rows [N] with vectors [N, d]. Of a row that comes twice the last vector stays.

        Raises:
            ValueError: a number is not finite or too large, or the vectors are not as wide as the index.
        """
        rows, vectors = np.asarray(rows, np.int64), np.asarray(vectors, np.float32)
        if vectors.shape != (len(rows), self.dimension) or not searchable(vectors).all():
            raise ValueError(f"the index takes vectors of {self.dimension} numbers, none larger than {LARGEST:g}")
        if not len(rows):
            return
        _, last = np.unique(rows[::-1], return_index=True)
        keep = np.sort(len(rows) - 1 - last)
        rows, vectors = rows[keep], vectors[keep]
        for at in range(0, len(rows), self.config.write_batch):
            self._write(rows[at : at + self.config.write_batch], vectors[at : at + self.config.write_batch])
        self._rebuild_if_due()

    def delete(self, rows: Array) -> None:
        """Forget rows; those that are not known are ignored. An upsert brings them back."""
        self._take_out(rows, hide=False)

    def hide(self, rows: Array) -> None:
        """Find rows no more, known or not, until they are shown again; their vectors may change meanwhile."""
        self._take_out(rows, hide=True)

    def show(self, rows: Array) -> None:
        """Undo :meth:`hide`."""
        rows = np.unique(np.asarray(rows, np.int64))
        for at in range(0, len(rows), self.config.write_batch):
            with self._lock.write():
                part = rows[at : at + self.config.write_batch]
                part = part[part < len(self._vectors)]
                part = part[self._hidden[part]]
                self._hidden[part] = False
                part = part[self._known[part]]
                self._size += len(part)
                if self._lists is not None and len(part):
                    vectors = self._vectors.get(part)
                    self._lists.put(part, vectors, self._lists.assign(vectors))
                self._note(part)

    def search(
        self,
        vectors: Array,
        n: int | Sequence[int],
        exclude: Sequence[Array | None] | None = None,
        allow: Sequence[Subset | None] | None = None,
    ) -> tuple[Array, Array]:
        """The n best rows by inner product for each of Q vectors [Q, d].

        Args:
            n: For all, or for each.
            exclude: for each query, rows that must not come back.
            allow: for each query, the only rows that may (None: all).

        Returns:
            rows [Q, max n] int64 and scores, best first; −1 and −inf where there are fewer than n.
        """
        vectors = np.ascontiguousarray(vectors, np.float32)
        counts = [n] * len(vectors) if isinstance(n, int) else list(n)
        exclude, allow = exclude or [None] * len(vectors), allow or [None] * len(vectors)
        rows = np.full((len(vectors), max(counts, default=0)), -1, np.int64)
        scores = np.full(rows.shape, -np.inf, np.float32)
        with self._lock.read():
            size, lists = len(self._vectors), self._lists
            whole = self._all_rows(vectors) if lists is None else lists.rank(vectors)
            for q, (count, out, only) in enumerate(zip(counts, exclude, allow, strict=True)):
                out = np.empty(0, np.int64) if out is None else out[out < size]
                if only is not None and only.size * self.dimension <= _SCORED:
                    hits = self._score(vectors[q], only, count, out)
                elif lists is not None:
                    found, _ = search_lists(
                        lists, self._probes, whole[q], vectors[q], with_spare(count), out, only, size, self._size
                    )
                    hits = best_rows(found, self._vectors.get(found) @ vectors[q], count)
                else:
                    whole[q, out] = -np.inf
                    if only is not None:
                        whole[q, ~only.holds(np.arange(size))] = -np.inf
                    hits = best_rows(np.arange(size), whole[q], count)
                rows[q, : len(hits[0])], scores[q, : len(hits[0])] = hits
        return rows, scores

    def vectors(self, rows: Array) -> Array:
        """The current vectors [N, d] of rows [N], hidden ones too; zero where a row is not known."""
        rows = np.asarray(rows, np.int64)
        with self._lock.read():
            known = (rows >= 0) & (rows < len(self._vectors))
            known[known] = self._known[rows[known]]
            current = np.zeros((len(rows), self.dimension), np.float32)
            current[known] = self._vectors.get(rows[known])
        return current

    def knows(self, rows: Array) -> Array:
        """[N] whether rows have a vector, hidden or not."""
        known = np.zeros(len(rows), bool)
        with self._lock.read():
            inside = rows < len(self._known)
            known[inside] = self._known[rows[inside]]
        return known

    def rows(self) -> Array:
        """All rows that can be found, ascending."""
        with self._lock.read():
            return np.flatnonzero(self._visible())

    def rebuild(self) -> None:
        """Learn new lists from the current vectors and swap them in; searches and updates go on meanwhile.

        Rows that change during the rebuild are noted and brought over before the swap, the last few under the lock.
        """
        with self._rebuilding:
            try:
                with self._lock.write():
                    self._touched, self._moved, self._changed = [], np.zeros(len(self._moved), bool), 0
                    visible = np.flatnonzero(self._visible())
                count = self.config.lists or list_count(len(visible))
                with self._lock.read():
                    points = self._vectors.get(np.sort(sample(visible, count * self.config.train_per_list)))
                lists = InvertedLists(points, count)
                calibration = Calibration(self._queries) if self._calibrates and self._queries is not None else None
                for part, copied in self._copies(visible):
                    lists.put(part, copied, lists.assign(copied))
                    if calibration:
                        calibration.look_at(part, copied)
                probes = self._probes if calibration is None else calibration.probes(lists, self.config.recall)
                for _ in range(3):  # each pass is shorter than the one before
                    with self._lock.write():
                        touched, self._touched = self._touched, []
                    with self._lock.read():
                        changes = self._changes(touched)
                    _bring_over(lists, *changes)
                with self._lock.write():
                    _bring_over(lists, *self._changes(self._touched))
                    self._lists, self._probes, self._built_for, self._calibrated = lists, probes, self._size, 0
            finally:
                self._touched = None

    def calibrate(self) -> None:
        """Find anew how many lists must be visited: rows that move away from the centroids they were listed under are
        found later. Searches and updates go on meanwhile.
        """
        with self._rebuilding:
            changed, lists = self._changed, self._lists
            if self._queries is None or lists is None:
                return
            calibration = Calibration(self._queries)
            for part, copied in self._copies(self.rows()):
                calibration.look_at(part, copied)
            probes = calibration.probes(lists, self.config.recall, self._lock.read)
            with self._lock.write():
                self._probes, self._calibrated = probes, changed

    def _write(self, rows: Array, vectors: Array) -> None:
        lists = self._lists
        # Most of the work, and it needs no lock.
        places = np.empty(0, np.int64) if lists is None else lists.assign(vectors)
        with self._lock.write():
            self._reserve(int(rows.max()) + 1)
            new = ~self._known[rows]
            self._size += int(np.count_nonzero(new & ~self._hidden[rows]))
            self._known[rows] = True
            self._vectors.put(rows, vectors)
            if self._lists is not None:
                if self._lists is not lists:  # other lists have taken their place meanwhile
                    places = self._lists.assign(vectors)
                seen = ~self._hidden[rows]
                self._lists.put(rows[seen], vectors[seen], places[seen])
            self._note(rows)

    def _take_out(self, rows: Array, hide: bool) -> None:
        rows = np.unique(np.asarray(rows, np.int64))
        for at in range(0, len(rows), self.config.write_batch):
            part = rows[at : at + self.config.write_batch]
            with self._lock.write():
                self._reserve(int(part.max()) + 1)
                seen = part[self._visible(part)]
                if hide:
                    self._hidden[part] = True
                else:
                    self._known[part] = False
                if self._lists is not None:
                    self._lists.remove(seen)
                self._size -= len(seen)
                self._note(seen)

    def _copies(self, rows: Array) -> Iterator[tuple[Array, Array]]:
        """Some rows and copies of their current vectors at a time."""
        for at in range(0, len(rows), _COPY):
            part = rows[at : at + _COPY]
            with self._lock.read():
                copied = self._vectors.get(part)
            yield part, copied

    # The parts below are called with the lock held.

    def _all_rows(self, vectors: Array) -> Array:
        """[Q, rows] scores of all that can be found."""
        scores = self._vectors.scores(vectors)
        scores[:, ~self._visible()] = -np.inf
        return scores

    def _score(self, vector: Array, only: Subset, n: int, exclude: Array) -> Hits:
        rows = only.rows()
        rows = rows[rows < len(self._vectors)]
        rows = rows[self._visible(rows)]
        if len(exclude):
            rows = rows[~np.isin(rows, exclude)]
        return best_rows(rows, self._vectors.get(rows) @ vector, n)

    def _visible(self, rows: Array | slice = slice(None)) -> Array:
        if isinstance(rows, slice):
            rows = slice(0, len(self._vectors))
        return self._known[rows] & ~self._hidden[rows]

    def _changes(self, touched: list[Array]) -> tuple[Array, Array, Array]:
        """Of rows that were written: those that are visible, their vectors, and those that are not."""
        rows = np.unique(np.concatenate(touched)) if touched else np.empty(0, np.int64)
        visible = self._visible(rows)
        return rows[visible], self._vectors.get(rows[visible]), rows[~visible]

    def _reserve(self, rows: int) -> None:
        self._vectors.grow(rows)
        if rows > len(self._known):
            room = np.zeros(max(rows * 9 // 8, 1_024) - len(self._known), bool)
            self._known, self._hidden, self._moved = (
                np.concatenate([marks, room]) for marks in (self._known, self._hidden, self._moved)
            )

    def _note(self, rows: Array) -> None:
        self._changed += int(np.count_nonzero(~self._moved[rows]))
        self._moved[rows] = True
        if self._touched is not None:
            self._touched.append(rows)

    def _wants_lists(self) -> bool:
        if self.config.kind == "auto":
            return self._size > self.config.exact_up_to
        return self.config.kind == "ivf" and self._size > 0

    def _rebuild_if_due(self) -> None:
        if not self._wants_lists() or (self._thread is not None and self._thread.is_alive()):
            return
        size = max(self._built_for, 1)
        if self._lists is None or self._changed > self.config.rebuild_after * size:
            work = self.rebuild
        elif self._calibrates and self._changed - self._calibrated > self.config.calibrate_after * size:
            work = self.calibrate
        else:
            return
        # No daemon: a process waits for it, since to be cut off within Faiss would abort it.
        self._thread = threading.Thread(target=work, name="index-rebuild")
        self._thread.start()

    @property
    def _calibrates(self) -> bool:
        return self._queries is not None and self.config.probes is None


def sample(rows: Array, most: int) -> Array:
    """At most so many of some rows, always the same ones."""
    if len(rows) <= most:
        return np.ascontiguousarray(rows)
    return rows[np.random.default_rng(0).choice(len(rows), most, replace=False)]


def _bring_over(lists: InvertedLists, rows: Array, vectors: Array, gone: Array) -> None:
    lists.remove(gone)
    if len(rows):
        lists.put(rows, vectors, lists.assign(vectors))
