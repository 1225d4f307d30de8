"""WALS: weighted alternating least squares (Hu, Koren, Volinsky 2008), by the library ``implicit``."""

import numpy as np
from scipy import sparse
from threadpoolctl import threadpool_limits

from evaluation.ranks import Vectors, VectorScorer
from evaluation.test_clicks import TestClicks
from training.training_set import TrainingSet

Array = np.ndarray


def one_thread() -> threadpool_limits:
    """A context in which linear algebra has one thread: its products are small, and more threads are in the way."""
    return threadpool_limits(1, "blas")


class WALS:
    """Factors of the click matrix. Live, a query's factors are solved anew from all that it has clicked so far.

    Args:
        alpha: The weight of a click against a missing one.
    """

    def __init__(
        self, factors: int = 32, regularization: float = 0.05, alpha: float = 5.0, iterations: int = 15, seed: int = 0
    ):
        from implicit.cpu.als import AlternatingLeastSquares

        with one_thread():
            self.model = AlternatingLeastSquares(
                factors=factors,
                regularization=regularization,
                alpha=alpha,
                iterations=iterations,
                random_state=seed,
                num_threads=1,
            )

    def fit(self, data: TrainingSet, cut_ms: int) -> None:
        ones = np.ones(len(data.clicks), np.float32)
        shape = len(data.queries), len(data.items)
        self.clicked = sparse.csr_matrix((ones, (data.clicks.queries, data.clicks.items)), shape)
        with one_thread():
            self.model.fit(self.clicked, show_progress=False)

    def scorer(self, test: TestClicks, live: bool) -> "WALSScorer":
        return WALSScorer(self, test, live)


class WALSScorer(VectorScorer):
    """Factors; zeros for a query or an item that has none."""

    def __init__(self, model: WALS, test: TestClicks, live: bool):
        self.model, self.test, self.live = model, test, live
        factors = np.asarray(model.model.item_factors)
        self.queries = np.zeros((len(test.queries), factors.shape[1]), np.float32)
        self.queries[: model.clicked.shape[0]] = model.model.user_factors
        self.items = np.zeros((len(test.items), factors.shape[1]), np.float32)
        self.items[: len(factors)] = factors

    def vectors(self, rows: slice) -> Vectors:
        queries = self._solve(rows) if self.live else self.queries[self.test.clicks.queries[rows]]
        return Vectors(queries[:, None], self.items)

    def _solve(self, rows: slice) -> Array:
        """Factors of the rows' queries, each from the items that it had clicked before the click's moment."""
        test, known = self.test, self.model.clicked.shape
        queries, counts = test.clicks.queries[rows], test.visible[rows]
        inside = queries < known[0]
        at_cut = sparse.diags(inside.astype(np.float32)) @ self.model.clicked[np.where(inside, queries, 0)]
        row = np.repeat(np.arange(len(queries)), counts)
        within = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
        start = (test.groups.place - test.groups.rank)[rows]
        items = test.clicks.items[test.groups.order[start[row] + within]]
        old = items < known[1]
        since = sparse.csr_matrix(
            (np.ones(int(old.sum()), np.float32), (row[old], items[old])), (len(queries), known[1])
        )
        clicked = (at_cut + since).tocsr()
        solved = np.asarray(self.model.model.recalculate_user(np.arange(len(queries)), clicked))
        solved[np.diff(clicked.indptr) == 0] = 0
        return solved
