"""ItemCF: items that the same queries click, weighted towards what the query clicked last."""

import numpy as np
from scipy import sparse

from training.examples import TrainingSet
from training.replay import Replay

Array = np.ndarray


class ItemCF:
    """``score(u, j) = Σ_k recency^k · C(i_k, j) / (n(i_k) · n(j))^damping`` over u's items i_0 (latest), i_1, …

    C(i, j) is the number of queries that clicked both, n(i) those that clicked i.

    Args:
        recency: Weight of an item against the one clicked just after it (1: all the same).
        damping: 0.5 is the cosine; more favours the tail.
        latest: How many of a query's latest items count.
    """

    def __init__(self, recency: float = 0.9, damping: float = 0.5, latest: int = 100):
        self.recency, self.damping, self.latest = recency, damping, latest

    def fit(self, window: TrainingSet) -> None:
        examples = window.examples
        shape = len(window.query), len(window.item)
        ones = np.ones(len(examples), np.float32)
        clicked = sparse.csr_matrix((ones, (examples.query_rows, examples.item_rows[:, 0])), shape)
        clicked.data[:] = 1  # a repeated click is the same query
        self.together = (clicked.T @ clicked).tocsr()
        self.clicked_by = self.together.diagonal()

    def scorer(self, replay: Replay, live: bool) -> "_Scorer":
        return _Scorer(self, replay, live)


class _Row:
    """A sparse row that grows: adding one and reading all are both cheap."""

    def __init__(self) -> None:
        self.place: dict[int, int] = {}
        self.columns, self.values = np.empty(8, np.int64), np.zeros(8, np.float32)

    def add(self, column: int) -> None:
        place = self.place.setdefault(column, len(self.place))
        if place == len(self.columns):
            self.columns = np.concatenate([self.columns, self.columns])
            self.values = np.concatenate([self.values, np.zeros_like(self.values)])
        self.columns[place] = column
        self.values[place] += 1

    def items(self) -> Array:
        return self.columns[: len(self.place)]

    def counts(self) -> Array:
        return self.values[: len(self.place)]


class _Scorer:
    def __init__(self, fitted: ItemCF, replay: Replay, live: bool):
        self.fitted, self.replay, self.live = fitted, replay, live
        self.width = len(replay.item) if live else replay.known_items
        self.clicked_by = np.zeros(self.width)
        self.clicked_by[: replay.known_items] = fitted.clicked_by
        self.since: dict[int, _Row] = {}  # the rows of C, since the cut
        self.past: dict[int, list[int]] = {}

    def _history(self, query: int) -> list[int]:
        """The query's items, oldest first."""
        if query not in self.past:
            ring, clicks = self.replay.query.history[query], int(self.replay.query.clicks[query])
            numbers = np.arange(max(0, clicks - len(ring)), clicks)
            self.past[query] = [int(item) for item in ring[numbers % len(ring)] if item >= 0] if len(ring) else []
        return self.past[query]

    def score(self, rows: slice) -> Array:
        """Scores [B, I] from what each query clicked before."""
        scores = np.zeros((rows.stop - rows.start, self.width), np.float32)
        for row, position in enumerate(range(rows.start, rows.stop)):
            history = self._history(int(self.replay.queries[position]))
            self._score(scores[row], history[::-1][: self.fitted.latest])
            if self.live:
                self._count(history, int(self.replay.items[position]))
        return scores

    def _score(self, out: Array, latest_first: list[int]) -> None:
        together, damping = self.fitted.together, self.fitted.damping
        for k, item in enumerate(latest_first):
            weight = self.fitted.recency**k / max(self.clicked_by[item], 1) ** damping
            if item < together.shape[0]:
                run = slice(together.indptr[item], together.indptr[item + 1])
                out[together.indices[run]] += weight * together.data[run]
            if item in self.since:
                out[self.since[item].items()] += weight * self.since[item].counts()
        out /= np.maximum(self.clicked_by, 1) ** damping

    def _count(self, history: list[int], item: int) -> None:
        if item not in history:
            for other in set(history):
                self.since.setdefault(item, _Row()).add(other)
                self.since.setdefault(other, _Row()).add(item)
            self.clicked_by[item] += 1
        history.append(item)
