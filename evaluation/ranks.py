"""The rank of each test click's item over the full corpus, static or live; ties count against the model."""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np

from evaluation.metrics import MISS
from evaluation.test_clicks import TestClicks

Array = np.ndarray
BLOCK = 64  # clicks between two looks at the items
PART = 256  # clicks scored at a time, where a moment has more than a block


class Scorer(Protocol):
    """A model over test clicks. Live, it folds clicks in; static, it stays as at the cut."""

    live: bool

    def begin(self, block: slice) -> None:
        """Look at what is known before a block of clicks, no moment of which is split. Called in order."""

    def score(self, rows: slice) -> Array:
        """Scores [B, I] of some clicks of the block.

        Row r may use what was known at the cut and, if live, the clicks before r's moment; never click r itself.
        """

    def end(self, block: slice) -> None:
        """Fold the block's clicks, if live."""


class Vectors(NamedTuple):
    """Vectors whose inner products are scores: queries [B, K, d], of whose K the best counts, and items [I, d]."""

    queries: Array
    items: Array

    def scores(self) -> Array:
        """[B, I]."""
        size, count, dim = self.queries.shape
        scores = self.queries.reshape(-1, dim) @ self.items.T
        return scores if count == 1 else scores.reshape(size, count, -1).max(axis=1)


class VectorScorer:
    """A scorer whose scores are inner products, so that an index can search its items."""

    live: bool

    def begin(self, block: slice) -> None: ...

    def vectors(self, rows: slice) -> Vectors:
        """Those of some clicks; items that do not exist yet may have any. Called as ``score`` is."""
        raise NotImplementedError

    def score(self, rows: slice) -> Array:
        return self.vectors(rows).scores()

    def end(self, block: slice) -> None: ...


class RankObserver(Protocol):
    """Ranks the same clicks in another way, such as through an index."""

    def block(self, vectors: Vectors, targets: Array, exists: Array, seen: tuple[Array, Array] | None) -> None:
        """The vectors of B clicks, and the arguments of :func:`ranks` that go with them."""


def ranks(scores: Array, targets: Array, exists: Array, seen: tuple[Array, Array] | None = None) -> Array:
    """The target's rank, 1 = first: [B]; :data:`MISS` where it is not in the corpus, left out, or has no finite score.

    Args:
        scores: [B, I]. targets: [B] columns. exists: [B, I] which items make up the row's corpus.
        seen: (row, column) pairs to leave out.

    Ties count against the model: a model whose scores are all equal ranks every target last. So does NaN.
    """
    scores = np.where(exists, scores, -np.inf)
    if seen is not None:
        scores[seen] = -np.inf
    target = scores[np.arange(len(scores)), targets]
    place = (~(scores < target[:, None])).sum(axis=1)  # the target itself makes the first 1; NaN is not below
    return np.where(np.isfinite(target), place, MISS)


def rank_clicks(
    scorer: Scorer, test: TestClicks, on_clicks: Callable[[int], None] = lambda clicks: None,
    observer: RankObserver | None = None,
) -> Array:  # fmt: skip
    """The rank of each of N test clicks: [N].

    Where answers leave out what a query has clicked, a repeated click is a miss.

    Args:
        on_clicks: Called with the number of clicks done.
        observer: Gets the vectors too, if the scores come from vectors.
    """
    placed = np.empty(len(test), np.int64)
    for block in test.clicks.blocks(BLOCK):
        scorer.begin(block)
        for start in range(block.start, block.stop, PART):
            rows = slice(start, min(start + PART, block.stop))
            vectors = scorer.vectors(rows) if observer and isinstance(scorer, VectorScorer) else None
            scores = scorer.score(rows) if vectors is None else vectors.scores()
            targets, exists = test.clicks.items[rows], test.exists(rows, scorer.live)
            seen = test.seen(rows) if test.excludes_seen else None
            placed[rows] = ranks(scores, targets, exists, seen)
            if observer and vectors is not None:
                observer.block(vectors, targets, exists, seen)
        scorer.end(block)
        on_clicks(block.stop)
    return placed
