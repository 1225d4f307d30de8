"""How many inverted lists a search must visit for the recall that is promised, measured on typical queries."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import faiss
import numpy as np

Array = np.ndarray
TOP = 100  # rows of each query that recall is measured on


class Calibration:
    """The exact best rows of some queries, gathered part by part of the corpus, and what lists find of them.

    Args:
        queries: [Q, d] float32.
    """

    def __init__(self, queries: Array):
        self.queries = queries
        self.best = np.empty((len(queries), 0), np.int64)
        self._scores = np.empty((len(queries), 0), np.float32)

    def look_at(self, rows: Array, vectors: Array) -> None:
        """Keep the best of those found so far and some more rows [N] with their vectors [N, d]."""
        scores, found = faiss.knn(self.queries, vectors, min(TOP, len(rows)), metric=faiss.METRIC_INNER_PRODUCT)
        found, scores = np.hstack([self.best, rows[found]]), np.hstack([self._scores, scores])
        order = np.argsort(-scores, axis=1)[:, :TOP]
        self.best, self._scores = np.take_along_axis(found, order, 1), np.take_along_axis(scores, order, 1)

    def fewest_probes(
        self, lists: faiss.IndexIVFFlat, recall: float, lock: Callable[[], AbstractContextManager] = nullcontext
    ) -> int:
        """How many lists a search must visit to find this share of the best rows.

        Args:
            lock: Held during each small search, if the lists are in use.
        """
        probes = 1
        while probes < lists.nlist:
            hits, parameters = 0, faiss.SearchParametersIVF(nprobe=probes)
            for at in range(0, len(self.queries), 8):
                with lock():
                    _, found = lists.search(self.queries[at : at + 8], self.best.shape[1], params=parameters)
                hits += sum(len(np.intersect1d(f, e)) for f, e in zip(found, self.best[at : at + 8], strict=True))
            if hits >= recall * self.best.size:
                break
            probes = max(probes + 1, probes * 5 // 4)
        return min(probes, lists.nlist)
