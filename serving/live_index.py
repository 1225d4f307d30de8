"""The live index: maximum inner product search over vectors that change while it searches.

The truth is one dense matrix of the current vectors, row = item. Small corpora are searched in it directly, which is
exact. Large ones have inverted lists (Faiss IVFFlat) over it: HNSW cannot remove, and re-adding an id there leaves the
old vector findable, while IVFFlat with a hashtable direct map takes a row out before it puts the new one in.
"""

import threading
from collections.abc import Iterator, Sequence

import faiss
import numpy as np

from serving.calibration import Calibration
from serving.config import IndexConfig
from serving.rwlock import ReadWriteLock
from training.bundle import writable

Array = np.ndarray
_SELECTIVE = (
    0.02  # an allow-list below this share of the corpus is scored row by row: probing lists would miss most of it
)
_COPY = 65_536  # rows copied at a time while lists are rebuilt
_PROBES = 32  # where there are no queries to calibrate with
_QUERIES = 128  # to calibrate with


def list_count(rows: int) -> int:
    """The power of two nearest to 4·√n, so that centroids and list entries cost a search about the same."""
    return 1 << max(0, round(np.log2(4 * np.sqrt(max(rows, 1)))))


class LiveIndex:
    """Rows with vectors, safe under threads: upsert, delete, search. Every change is findable when the call returns.

    Rows are small non-negative integers that the caller hands out (an item's row in its table), never reused.
    """

    def __init__(self, vectors: Array, config: IndexConfig | None = None, queries: Array | None = None):
        """Start with rows 0…n−1 of ``vectors`` [n, d] float32, for instance a bundle's.

        Args:
            vectors: Copied; of a file that is mapped into memory, only what is written to.
            queries: [Q, d] typical queries, on a sample of which lists are calibrated to the recall that is promised.
        """
        self.config = config or IndexConfig()
        self._queries = None if queries is None or not len(queries) else sample(queries, _QUERIES)
        self.probes = self.config.probes or _PROBES
        self._vectors = writable(vectors.astype(np.float32, copy=False))
        self._alive = np.ones(len(vectors), bool)
        self._rows = len(vectors)  # rows handed out; the matrix may be longer
        self._size = len(vectors)
        self._lock = ReadWriteLock()
        self._rebuilding = threading.Lock()
        self._touched: list[Array] | None = None  # rows written since a rebuild began
        self._written = 0  # rows written since the lists were built
        self._calibrated = 0  # of them, those that had been written at the last calibration
        self._built_for = 0
        self._lists: faiss.IndexIVFFlat | None = None
        self._thread: threading.Thread | None = None
        if self._wants_lists():
            self.rebuild()

    def __len__(self) -> int:
        return self._size

    @property
    def dimension(self) -> int:
        return self._vectors.shape[1]

    @property
    def kind(self) -> str:
        return "exact" if self._lists is None else "ivf"

    @property
    def lists(self) -> faiss.IndexIVFFlat | None:
        """The Faiss index that is searched now; None while search is exact. To look at: it has no lock."""
        return self._lists

    @property
    def rebuilding(self) -> bool:
        return self._touched is not None

    def upsert(self, rows: Array, vectors: Array) -> None:
        """Insert or replace rows [N] with vectors [N, d]. Of a row that comes twice the last vector stays."""
        rows = np.asarray(rows, np.int64)
        vectors = np.asarray(vectors, np.float32)
        if len(rows) == 0:
            return
        _, last = np.unique(rows[::-1], return_index=True)
        keep = np.sort(len(rows) - 1 - last)
        rows, vectors = rows[keep], vectors[keep]
        for at in range(0, len(rows), self.config.write_batch):
            part = slice(at, at + self.config.write_batch)
            with self._lock.write():
                self._reserve(int(rows[part].max()) + 1)
                if self._lists is not None:
                    _remove(self._lists, rows[part][self._alive[rows[part]]])
                    self._lists.add_with_ids(np.ascontiguousarray(vectors[part]), rows[part])
                self._size += int(np.count_nonzero(~self._alive[rows[part]]))
                self._vectors[rows[part]] = vectors[part]
                self._alive[rows[part]] = True
                self._note(rows[part])
        self._rebuild_if_due()

    def delete(self, rows: Array) -> None:
        """Take rows out; rows that are not there are ignored."""
        rows = np.unique(np.asarray(rows, np.int64))
        for at in range(0, len(rows), self.config.write_batch):
            with self._lock.write():
                part = rows[at : at + self.config.write_batch]
                part = part[(part >= 0) & (part < self._rows)]
                part = part[self._alive[part]]
                if self._lists is not None:
                    _remove(self._lists, part)
                self._alive[part] = False
                self._size -= len(part)
                self._note(part)

    def search(
        self,
        vectors: Array,
        n: int,
        exclude: Sequence[Array | None] | None = None,
        allow: Sequence[Array | None] | None = None,
    ) -> tuple[Array, Array]:
        """The n best rows by inner product for each of Q vectors [Q, d].

        Args:
            exclude: for each query, rows that must not come back.
            allow: for each query, the only rows that may (None: all).

        Returns:
            rows [Q, n] int64 and scores [Q, n], best first; −1 and −inf where there are fewer than n.
        """
        vectors = np.ascontiguousarray(vectors, np.float32)
        rows = np.full((len(vectors), n), -1, np.int64)
        scores = np.full((len(vectors), n), -np.inf, np.float32)
        nothing = [None] * len(vectors)
        with self._lock.read():
            for q, (out, only) in enumerate(zip(exclude or nothing, allow or nothing, strict=True)):
                if only is not None and (self._lists is None or len(only) <= _SELECTIVE * self._size):
                    found = self._score(vectors[q], only, n, out)
                elif self._lists is None:
                    found = self._scan(vectors[q], n, out)
                else:
                    found = self._probe(vectors[q], n, out, only)
                rows[q, : len(found[0])], scores[q, : len(found[0])] = found
        return rows, scores

    def vectors(self, rows: Array) -> Array:
        """The current vectors [N, d] of rows [N]; zero where a row is not there."""
        rows = np.asarray(rows, np.int64)
        with self._lock.read():
            there = (rows >= 0) & (rows < self._rows)
            there[there] = self._alive[rows[there]]
            found = np.zeros((len(rows), self.dimension), np.float32)
            found[there] = self._vectors[rows[there]]
        return found

    def rows(self) -> Array:
        """All rows that are there, ascending."""
        with self._lock.read():
            return np.flatnonzero(self._alive[: self._rows])

    def rebuild(self) -> None:
        """Learn new lists from the current vectors and swap them in; searches and updates go on meanwhile.

        Rows that change during the rebuild are noted and brought over before the swap, the last few under the lock.
        """
        with self._rebuilding:
            try:
                with self._lock.write():
                    self._touched = []
                    alive = np.flatnonzero(self._alive[: self._rows])
                    written = self._written
                lists = self._train(alive)
                calibration = Calibration(self._queries) if self._calibrates else None
                for part, copied in self._copies(alive):
                    lists.add_with_ids(copied, part)
                    if calibration:
                        calibration.look_at(part, copied)
                probes = self.config.probes or min(_PROBES, lists.nlist)
                if calibration:
                    probes = calibration.fewest_probes(lists, self.config.recall)
                lists.nprobe = probes
                for _ in range(3):  # each pass is shorter than the one before
                    with self._lock.write():
                        touched, self._touched = self._touched, []
                    self._bring_over(lists, touched, lock=True)
                with self._lock.write():
                    self._bring_over(lists, self._touched, lock=False)
                    self._lists, self.probes = lists, probes
                    self._written -= written
                    self._calibrated = 0
                    self._built_for = self._size
            finally:
                self._touched = None

    def calibrate(self) -> None:
        """Find anew how many lists must be visited: rows that move away from the centroids they were listed under are
        found later. Searches and updates go on meanwhile.
        """
        with self._rebuilding:
            written, calibration = self._written, Calibration(self._queries)
            for part, copied in self._copies(self.rows()):
                calibration.look_at(part, copied)
            lists = self._lists
            probes = calibration.fewest_probes(lists, self.config.recall, self._lock.read)
            with self._lock.write():
                lists.nprobe = self.probes = probes
                self._calibrated = written

    def _copies(self, rows: Array) -> Iterator[tuple[Array, Array]]:
        """Some rows and copies of their current vectors at a time."""
        for at in range(0, len(rows), _COPY):
            part = rows[at : at + _COPY]
            with self._lock.read():
                copied = self._vectors[part]
            yield part, copied

    # The parts below are called with the lock held.

    def _scan(self, vector: Array, n: int, exclude: Array | None) -> tuple[Array, Array]:
        scores = self._vectors[: self._rows] @ vector
        scores[~self._alive[: self._rows]] = -np.inf
        if exclude is not None and len(exclude):
            scores[exclude[exclude < self._rows]] = -np.inf
        return _best(np.arange(self._rows), scores, n)

    def _score(self, vector: Array, only: Array, n: int, exclude: Array | None) -> tuple[Array, Array]:
        only = only[only < self._rows]
        only = only[self._alive[only]]
        if exclude is not None:
            only = only[~np.isin(only, exclude)]
        return _best(only, self._vectors[only] @ vector, n)

    def _probe(self, vector: Array, n: int, exclude: Array | None, only: Array | None) -> tuple[Array, Array]:
        probes, selector = self.probes, None
        if exclude is not None and len(exclude):
            selector = faiss.IDSelectorNot(faiss.IDSelectorBatch(np.ascontiguousarray(exclude, np.int64)))
        if only is not None:
            # A list holds fewer allowed rows, so as many more lists must be visited to find n of them.
            probes = min(self._lists.nlist, max(probes, round(probes * self._size / max(len(only), 1))))
            allowed = np.zeros(self._rows, bool)
            allowed[only[only < self._rows]] = True
            bitmap = faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))
            selector = bitmap if selector is None else faiss.IDSelectorAnd(selector, bitmap)
        # Making parameters costs a tenth of a search; without a filter the lists' own setting does.
        parameters = faiss.SearchParametersIVF(nprobe=probes, sel=selector) if selector is not None else None
        scores, rows = self._lists.search(vector[None], n, params=parameters)
        found = rows[0] >= 0
        return rows[0][found], scores[0][found]

    def _reserve(self, rows: int) -> None:
        if rows > len(self._vectors):
            capacity = max(rows, len(self._vectors) * 3 // 2, 1024)
            grown = np.zeros((capacity, self.dimension), np.float32)
            grown[: self._rows] = self._vectors[: self._rows]
            self._vectors = grown
        if rows > len(self._alive):
            self._alive = np.concatenate([self._alive, np.zeros(len(self._vectors) - len(self._alive), bool)])
        self._rows = max(self._rows, rows)

    def _note(self, rows: Array) -> None:
        self._written += len(rows)
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
        if self._lists is None or self._written > self.config.rebuild_after * size:
            work = self.rebuild
        elif self._calibrates and self._written - self._calibrated > self.config.calibrate_after * size:
            work = self.calibrate
        else:
            return
        # No daemon: a process waits for it, since to be cut off within Faiss would abort it.
        self._thread = threading.Thread(target=work, name="index-rebuild")
        self._thread.start()

    @property
    def _calibrates(self) -> bool:
        return self._queries is not None and self.config.probes is None

    def _train(self, rows: Array) -> faiss.IndexIVFFlat:
        count = min(self.config.lists or list_count(len(rows)), max(1, len(rows)))
        with self._lock.read():
            points = self._vectors[np.sort(sample(rows, count * self.config.train_per_list))]
        lists = faiss.IndexIVFFlat(faiss.IndexFlatIP(self.dimension), self.dimension, count, faiss.METRIC_INNER_PRODUCT)
        lists.cp.min_points_per_centroid = 1  # small corpora are fine; Faiss would warn on the terminal
        lists.cp.max_points_per_centroid = self.config.train_per_list
        lists.train(points)
        lists.set_direct_map_type(faiss.DirectMap.Hashtable)
        return lists

    def _bring_over(self, lists: faiss.IndexIVFFlat, touched: list[Array], lock: bool) -> None:
        if not touched:
            return
        rows = np.unique(np.concatenate(touched))
        if lock:
            with self._lock.read():
                alive, vectors = self._alive[rows], self._vectors[rows]
        else:
            alive, vectors = self._alive[rows], self._vectors[rows]
        _remove(lists, rows)
        lists.add_with_ids(np.ascontiguousarray(vectors[alive]), rows[alive])


def sample(rows: Array, most: int) -> Array:
    """At most so many of some rows, always the same ones."""
    if len(rows) <= most:
        return np.ascontiguousarray(rows)
    return rows[np.random.default_rng(0).choice(len(rows), most, replace=False)]


def _remove(lists: faiss.IndexIVFFlat, rows: Array) -> None:
    if len(rows):
        # The hashtable direct map takes this selector alone; it ignores rows that it does not hold.
        lists.remove_ids(faiss.IDSelectorArray(np.ascontiguousarray(rows, np.int64)))


def _best(rows: Array, scores: Array, n: int) -> tuple[Array, Array]:
    """The n rows of highest finite score, best first; equal scores in order of rows."""
    if n < len(scores):
        top = np.argpartition(scores, len(scores) - n)[len(scores) - n :]
        rows, scores = rows[top], scores[top]
    order = np.lexsort((rows, -scores))
    order = order[np.isfinite(scores[order])]
    return rows[order], scores[order]
