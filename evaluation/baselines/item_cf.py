"""ItemCF: items that the same queries click, weighted towards what the query clicked last."""

import numpy as np
from scipy import sparse

from evaluation.test_clicks import TestClicks
from model.recent_items import to_lists
from training.training_set import TrainingSet

Array = np.ndarray


class ItemCF:
    """``score(u, j) = Σ_k recency^k · C(i_k, j) / (n(i_k) · n(j))^damping`` over u's items i_0 (latest), i_1, …

    C(i, j) is the number of queries that clicked both, n(i) those that clicked i.

    Args:
        recency: Weight of an item against the one clicked just after it (1: all the same).
        damping: 0.5 is the cosine; more favours the tail.
        latest: How many of a query's recent items count.
    """

    def __init__(self, recency: float = 0.9, damping: float = 0.5, latest: int = 100):
        self.recency, self.damping, self.latest = recency, damping, latest

    def fit(self, data: TrainingSet, cut_ms: int) -> None:
        shape = len(data.queries), len(data.items)
        ones = np.ones(len(data.clicks), np.float32)
        clicked = sparse.csr_matrix((ones, (data.clicks.queries, data.clicks.items)), shape)
        clicked.data[:] = 1  # a repeated click is the same query
        self.together = (clicked.T @ clicked).tocsr()
        self.clicked_by = self.together.diagonal()

    def scorer(self, test: TestClicks, live: bool) -> "ItemCFScorer":
        return ItemCFScorer(self, test, live)


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


class ItemCFScorer:
    """Histories, and the co-clicks since the cut."""

    def __init__(self, model: ItemCF, test: TestClicks, live: bool):
        self.model, self.test, self.live = model, test, live
        self.clicked_by = np.zeros(len(test.items))
        self.clicked_by[: len(model.clicked_by)] = model.clicked_by
        self.since: dict[int, _Row] = {}  # the rows of C, since the cut
        self.past: dict[int, list[int]] = {}

    def _history(self, query: int) -> list[int]:
        """The query's items, oldest first."""
        if query not in self.past:
            state = self.test.queries
            rows, _ = to_lists(state.recent_items[[query]], state.clicks[[query]])
            self.past[query] = rows.tolist()
        return self.past[query]

    def begin(self, block: slice) -> None:
        if not self.live:
            return
        # The clicks of one moment do not know of each other: they are taken in when the moment is over.
        self.waiting: list[tuple[int, int]] = []
        self.moment = -1

    def score(self, rows: slice) -> Array:
        """Scores [B, I] from what each query clicked before."""
        clicks = self.test.clicks
        scores = np.zeros((rows.stop - rows.start, len(self.clicked_by)), np.float32)
        for row, position in enumerate(range(rows.start, rows.stop)):
            query, item = int(clicks.queries[position]), int(clicks.items[position])
            if self.live and clicks.moments[position] != self.moment:
                self._take_in()
                self.moment = clicks.moments[position]
            self._score(scores[row], self._history(query)[::-1][: self.model.latest])
            if self.live:
                self.waiting.append((query, item))
        return scores

    def end(self, block: slice) -> None:
        if self.live:
            self._take_in()

    def _take_in(self) -> None:
        for query, item in self.waiting:
            self._count(self._history(query), item)
        self.waiting = []

    def _score(self, out: Array, latest_first: list[int]) -> None:
        together, damping = self.model.together, self.model.damping
        for k, item in enumerate(latest_first):
            weight = self.model.recency**k / max(self.clicked_by[item], 1) ** damping
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
