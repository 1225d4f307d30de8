"""How many inverted lists a search must visit for the recall that is promised, measured on typical queries."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import faiss
import numpy as np

from serving.index.lists import InvertedLists, with_spare

Array = np.ndarray
TOPS = (100, 1_000)  # recall is measured on so many rows of each query


@dataclass(frozen=True)
class Probes:
    """How many lists to visit for the best ``depth`` rows: a power law through what was measured at two depths."""

    at_100: int
    exponent: float = 0.0

    def __call__(self, depth: float) -> int:
        return max(1, round(self.at_100 * max(depth / TOPS[0], 1) ** self.exponent))


class Calibration:
    """The exact best rows of some queries, gathered part by part of the corpus, and what lists find of them.

    Args:
        queries: [Q, d] float32.
    """

    def __init__(self, queries: Array):
        self.queries = queries
        self._best = np.empty((len(queries), 0), np.int64)
        self._scores = np.empty((len(queries), 0), np.float32)

    def look_at(self, rows: Array, vectors: Array) -> None:
        """Keep the best of those found so far and some more rows [N] with their vectors [N, d]."""
        count = min(TOPS[-1], len(rows))
        scores, found = faiss.knn(self.queries, vectors, count, metric=faiss.METRIC_INNER_PRODUCT)
        found, scores = np.hstack([self._best, rows[found]]), np.hstack([self._scores, scores])
        order = np.argsort(-scores, axis=1)[:, : TOPS[-1]]
        self._best, self._scores = np.take_along_axis(found, order, 1), np.take_along_axis(scores, order, 1)

    def probes(
        self, lists: InvertedLists, recall: float, lock: Callable[[], AbstractContextManager] = nullcontext
    ) -> Probes:
        """How many lists a search must visit to find this share of the best rows.

        Args:
            lock: Held during each search, if the lists are in use.
        """
        ranks = np.argsort(-lists.rank(self.queries), axis=1)
        fewest, least = [], 1
        for top in TOPS:
            top = min(top, self._best.shape[1])
            while least < len(lists):
                hits = 0
                for query, order, right in zip(self.queries, ranks, self._best[:, :top], strict=True):
                    with lock():
                        found, _ = lists.search(query, with_spare(top), np.ascontiguousarray(order[:least]))
                    hits += len(np.intersect1d(found, right, assume_unique=True))
                if hits >= recall * self._best[:, :top].size:
                    break
                least = max(least + 1, least * 5 // 4)
            fewest.append(min(least, len(lists)))
        return Probes(fewest[0], float(np.log10(fewest[1] / fewest[0])))
