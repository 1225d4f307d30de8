"""WALS: weighted alternating least squares (Hu, Koren, Volinsky 2008), by the library ``implicit``."""

import numpy as np
from scipy import sparse
from threadpoolctl import threadpool_limits

from training.evaluation import Vectors, VectorScorer
from training.examples import TrainingSet
from training.replay import Replay

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

    def fit(self, window: TrainingSet) -> None:
        examples = window.examples
        ones = np.ones(len(examples), np.float32)
        shape = len(window.query), len(window.item)
        self.clicked = sparse.csr_matrix((ones, (examples.query_rows, examples.item_rows[:, 0])), shape)
        with one_thread():
            self.model.fit(self.clicked, show_progress=False)

    def scorer(self, replay: Replay, live: bool) -> "_Scorer":
        return _Scorer(self, replay, live)


class _Scorer(VectorScorer):
    def __init__(self, fitted: WALS, replay: Replay, live: bool):
        self.fitted, self.replay, self.live = fitted, replay, live
        self.items = np.asarray(fitted.model.item_factors)
        width = self.items.shape[1]
        self.queries = np.zeros((len(replay.query), width), np.float32)
        self.queries[: replay.known_queries] = fitted.model.user_factors
        extra = np.zeros((len(replay.item) - len(self.items) if live else 0, width), np.float32)
        self.items = np.concatenate([self.items, extra])

    def vectors(self, rows: slice) -> Vectors:
        """Factors; zeros for a query or an item that has none."""
        queries = self._solve(rows) if self.live else self.queries[self.replay.queries[rows]]
        return Vectors(queries[:, None], self.items)

    def _solve(self, rows: slice) -> Array:
        """Factors of the block's queries, each from the items that it had clicked before the click."""
        _, place, starts = self.replay.by_query
        queries = self.replay.queries[rows]
        counts = place[rows] - starts[queries]
        known = self.fitted.clicked.shape
        at_cut = sparse.csr_matrix((0, known[1]), dtype=np.float32)
        inside = queries < known[0]
        safe = np.where(inside, queries, 0)
        at_cut = sparse.diags(inside.astype(np.float32)) @ self.fitted.clicked[safe]
        row = np.repeat(np.arange(len(queries)), counts)
        within = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
        items = self.replay.items[self.replay.by_query[0][starts[queries][row] + within]]
        old = items < known[1]
        since = sparse.csr_matrix(
            (np.ones(int(old.sum()), np.float32), (row[old], items[old])), (len(queries), known[1])
        )
        clicked = (at_cut + since).tocsr()
        solved = np.asarray(self.fitted.model.recalculate_user(np.arange(len(queries)), clicked))
        solved[np.diff(clicked.indptr) == 0] = 0
        return solved
