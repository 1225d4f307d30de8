"""Inverted lists over the vectors of a large corpus: Faiss' IVF, with lists that are cheap to learn and to assign.

They hold numbers of two bytes, which halves their memory and what a search reads. A score is off by some thousandths:
a search asks for some rows more than it needs (:func:`with_spare`), and scores them anew by the vectors themselves.

Centroids are learned in two levels: some coarse clusters, then each one's own. That takes a second where one level
takes a minute, and finding a vector's list takes a tenth of the time.
"""

from typing import Any

import faiss
import numpy as np

from serving.index.latest_writes import LatestWrites

Array = np.ndarray
_FAISS: Any = faiss  # its type stubs lack some classes, and some methods of others
_COARSE_PROBES = 4  # coarse clusters in which the nearest centroid is looked for: finds it in 99.8 % of the cases
_ROUNDS = 8  # of k-means
Moves = tuple[Array, Array, Array]  # rows, the lists that they were in, and those that they are in now


def list_count(rows: int) -> int:
    """The power of two nearest to 4·√n, so that centroids and list entries cost a search about the same."""
    return 1 << max(0, round(np.log2(4 * np.sqrt(max(rows, 1)))))


def with_spare(n: int) -> int:
    """How many rows to ask for, so that the best n are among them though scores are rounded."""
    return n + n // 8 + 8


class InvertedLists:
    """Rows in lists around centroids. A row is in one list at most.

    Nothing here is safe under threads, but for :meth:`assign` and :meth:`rank`, which read centroids alone.

    Args:
        points: Vectors to learn from. count: How many lists; fewer if there are fewer points.
    """

    def __init__(self, points: Array, count: int):
        self.centroids = _two_levels(points, min(count, len(points)))
        dimension = points.shape[1]
        self.faiss: Any = _FAISS.IndexIVFScalarQuantizer(
            _flat(self.centroids, faiss.METRIC_INNER_PRODUCT), dimension, len(self.centroids),
            _FAISS.ScalarQuantizer.QT_bf16, faiss.METRIC_INNER_PRODUCT, False,
        )  # fmt: skip
        self.faiss.is_trained = True  # bfloat16 has nothing to learn
        self.faiss.set_direct_map_type(_FAISS.DirectMap.Hashtable)
        groups = max(1, round(np.sqrt(len(self.centroids))))
        self._nearest = faiss.IndexIVFFlat(faiss.IndexFlatL2(dimension), dimension, groups)
        self._nearest.cp.min_points_per_centroid = 1  # Faiss would warn on the terminal
        self._nearest.train(self.centroids)
        self._nearest.add(self.centroids)
        self._nearest.nprobe = min(groups, _COARSE_PROBES)
        self.list_of = np.full(0, -1, np.int32)  # row → its list; −1: in none
        self.moves: LatestWrites[Moves] = LatestWrites()
        """Of rows that came into a list or went out of one."""

    def __len__(self) -> int:
        """How many lists there are."""
        return len(self.centroids)

    def assign(self, vectors: Array) -> Array:
        """The lists [N] that vectors [N, d] belong to."""
        vectors = np.ascontiguousarray(vectors)
        lists = self._nearest.search(vectors, 1)[1][:, 0]
        if len(lost := np.flatnonzero(lists < 0)):  # none but empty clusters nearby
            lists[lost] = np.argmin(faiss.pairwise_distances(vectors[lost], self.centroids), axis=1)
        return lists

    def put(self, rows: Array, vectors: Array, lists: Array) -> None:
        """Insert or replace distinct rows [N], each in its list [N] of :meth:`assign`."""
        if not len(rows):
            return
        if len(self.list_of) <= rows.max():
            room = np.full(int(rows.max()) * 3 // 2 + 1_024 - len(self.list_of), -1, np.int32)
            self.list_of = np.concatenate([self.list_of, room])
        self.remove(rows)
        rows, vectors, lists = (np.ascontiguousarray(part) for part in (rows, vectors, lists))
        self.faiss.add_core(len(rows), *(faiss.swig_ptr(part) for part in (vectors, rows, lists)))
        self._move(rows, lists)

    def remove(self, rows: Array) -> None:
        """Take rows out; those that are in no list are ignored."""
        rows = rows[rows < len(self.list_of)]
        rows = np.ascontiguousarray(rows[self.list_of[rows] >= 0])
        if len(rows):
            self.faiss.remove_ids(faiss.IDSelectorArray(rows))  # the hashtable direct map takes this selector alone
            self._move(rows, np.full(len(rows), -1))

    def rank(self, queries: Array) -> Array:
        """Inner products [Q, lists] of queries [Q, d] with the centroids: the best lists are visited first."""
        return queries @ self.centroids.T

    def search(self, query: Array, n: int, lists: Array, allowed: Array | None = None) -> tuple[Array, Array]:
        """The best rows of some lists, and their rounded scores, best first.

        Args:
            query: [d]. lists: Which to visit. allowed: One bit a row, packed from the lowest: who may be found.
        """
        selector = None if allowed is None else _FAISS.IDSelectorBitmap(allowed)
        parameters = _FAISS.SearchParametersIVF(nprobe=len(lists), sel=selector)
        scores, rows = np.empty(n, np.float32), np.empty(n, np.int64)
        unused = np.zeros(len(lists), np.float32)
        self.faiss.search_preassigned_c(
            1, faiss.swig_ptr(query), n, faiss.swig_ptr(lists), faiss.swig_ptr(unused), faiss.swig_ptr(scores),
            faiss.swig_ptr(rows), False, parameters,
        )  # fmt: skip
        found = rows >= 0
        return rows[found], scores[found]

    def _move(self, rows: Array, lists: Array) -> None:
        self.moves.add(len(rows), (rows, self.list_of[rows], lists))
        self.list_of[rows] = lists


def best(scores: Array, count: int) -> Array:
    """Places of the ``count`` highest of some scores [N], in no order."""
    if count >= len(scores):
        return np.arange(len(scores))
    return np.argpartition(scores, len(scores) - count)[len(scores) - count :]


def _flat(vectors: Array, metric: int) -> faiss.IndexFlat:
    index = faiss.IndexFlat(vectors.shape[1], metric)
    index.add(vectors)
    return index


def _k_means(points: Array, count: int) -> Array:
    learner = _FAISS.Kmeans(
        points.shape[1], count, niter=_ROUNDS, seed=1, min_points_per_centroid=1, max_points_per_centroid=len(points)
    )
    learner.train(points)
    return learner.centroids


def _two_levels(points: Array, count: int) -> Array:
    """``count`` centroids [count, d]: each coarse cluster has as many as its share of the points."""
    points = np.ascontiguousarray(points, np.float32)
    coarse = _k_means(points, max(1, round(np.sqrt(count))))
    group = _flat(coarse, faiss.METRIC_L2).search(points, 1)[1][:, 0]
    sizes = np.bincount(group, minlength=len(coarse))
    # As many centroids as points at most, at least one where there is a point; rounding is settled by the largest.
    quota = np.minimum(np.maximum(sizes * count // len(points), sizes > 0), sizes)
    while quota.sum() != count:
        step = 1 if quota.sum() < count else -1
        room = np.where(sizes > quota, sizes / (quota + 1), -1) if step > 0 else np.where(quota > 1, quota, -1)
        quota[np.argmax(room)] += step
    return np.concatenate([_k_means(points[group == k], int(quota[k])) for k in np.flatnonzero(quota)])
