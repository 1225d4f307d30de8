"""HR@50, HR@100 and MRR×10 over the full corpus, static or live (prequential), with ties counted against the model."""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np
from pydantic import BaseModel

from training.replay import Replay, seen_pairs

Array = np.ndarray
MISS = np.iinfo(np.int64).max
BLOCK = 64
SEEN_BANDS = {"0": (0, 0), "1": (1, 1), "2-4": (2, 4), "5-19": (5, 19), "20+": (20, MISS)}


class Scorer(Protocol):
    """A model over a replay. ``live``: it folds clicks in, and items join its corpus at their first click."""

    live: bool

    def score(self, rows: slice) -> Array:
        """Scores [B, items] for clicks ``rows``, called once for each block, in order.

        Row r may use what was known at the cut and, if live, clicks before r; never click r itself.
        """
        ...


class Vectors(NamedTuple):
    """What scores are inner products of: queries [B, K, d], of whose K vectors the best counts, and items [I, d]."""

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

    def vectors(self, rows: slice) -> Vectors:
        """Those of clicks ``rows``; items that are no candidates yet may have any. Called as ``score`` is."""
        raise NotImplementedError

    def score(self, rows: slice) -> Array:
        return self.vectors(rows).scores()


class Beside(Protocol):
    """Ranks the same clicks in another way, such as through an index."""

    def block(self, vectors: Vectors, targets: Array, existing: Array, hidden: tuple[Array, Array] | None) -> None:
        """The vectors of a block of B clicks, and the arguments of :func:`ranks` that go with them."""
        ...


class Metrics(BaseModel):
    """hr50, hr100: share of clicks whose item is among the first N · mrr10: ten times the mean reciprocal rank."""

    clicks: int
    hr50: float
    hr100: float
    mrr10: float


class Report(BaseModel):
    """Metrics of all clicks and of parts of them."""

    all: Metrics
    parts: dict[str, Metrics]


def ranks(scores: Array, targets: Array, existing: Array, hidden: tuple[Array, Array] | None = None) -> Array:
    """The target's rank, 1 = first: [B]; :data:`MISS` where it is not in the corpus, hidden, or has no finite score.

    Args:
        scores: [B, I]. targets: [B] columns. existing: [B] columns below it make up the row's corpus.
        hidden: (row, column) pairs to leave out, such as items seen.

    Ties count against the model: a model whose scores are all equal ranks every target last. So does NaN.
    """
    scores = scores.copy()
    width = scores.shape[1]
    scores[np.arange(width)[None, :] >= existing[:, None]] = -np.inf
    if hidden is not None:
        inside = hidden[1] < width
        scores[hidden[0][inside], hidden[1][inside]] = -np.inf
    row = np.arange(len(scores))
    present = targets < width
    target = np.where(present, scores[row, np.minimum(targets, width - 1)], -np.inf)
    place = (~(scores < target[:, None])).sum(axis=1)  # the target itself makes the first 1; NaN is not below
    return np.where(np.isfinite(target), place, MISS)


def measure(
    scorer: Scorer,
    replay: Replay,
    filter_seen: bool = True,
    on_block: Callable[[int], None] = lambda clicks: None,
    beside: Beside | None = None,
) -> Array:
    """The rank of each of the replay's N clicks: [N].

    Args:
        filter_seen: Leave out what the query has clicked before; a repeated click is then a miss.
        on_block: Called with the number of clicks done.
        beside: Gets the vectors too, if the scores come from vectors.
    """
    found = np.empty(len(replay), np.int64)
    for start in range(0, len(replay), BLOCK):
        rows = slice(start, min(start + BLOCK, len(replay)))
        vectors = scorer.vectors(rows) if beside is not None and isinstance(scorer, VectorScorer) else None
        scores = scorer.score(rows) if vectors is None else vectors.scores()
        existing = replay.existing[rows] if scorer.live else np.full(len(scores), replay.known_items)
        hidden = seen_pairs(replay, rows) if filter_seen else None
        found[rows] = ranks(scores, replay.items[rows], existing, hidden)
        if vectors is not None:
            beside.block(vectors, replay.items[rows], existing, hidden)
        on_block(rows.stop)
    return found


def summarise(found: Array) -> Metrics:
    """Metrics of [N] ranks."""
    if not len(found):
        return Metrics(clicks=0, hr50=0, hr100=0, mrr10=0)
    reciprocal = np.where(found == MISS, 0.0, 1.0 / found)
    return Metrics(
        clicks=len(found),
        hr50=float((found <= 50).mean()),
        hr100=float((found <= 100).mean()),
        mrr10=float(10 * reciprocal.mean()),
    )


def report(found: Array, replay: Replay) -> Report:
    """Metrics of all, by how many clicks the query had made, for new queries and items, and by category size."""
    _, place, starts = replay.by_query
    before = place - starts[replay.queries] + replay.query.clicks[replay.queries]
    masks = {f"seen {name}": (before >= low) & (before <= high) for name, (low, high) in SEEN_BANDS.items()}
    masks["new queries"] = replay.queries >= replay.known_queries
    masks["new items"] = replay.items >= replay.known_items
    masks["known"] = ~masks["new queries"] & ~masks["new items"]
    masks.update(_by_category_size(replay))
    return Report(all=summarise(found), parts={name: summarise(found[mask]) for name, mask in masks.items()})


def _by_category_size(replay: Replay) -> dict[str, Array]:
    """Clicks on the categories that hold the first half of all training clicks, the next 40 %, and the rest."""
    sizes = np.bincount(replay.item.category, replay.item.clicks)
    if (sizes > 0).sum() < 3:
        return {}
    order = np.argsort(-sizes, kind="stable")
    before = np.empty(len(sizes))
    before[order] = (np.cumsum(sizes[order]) - sizes[order]) / sizes.sum()
    share = before[replay.item.category[replay.items]]
    return {
        "head categories": share < 0.5,
        "middle categories": (share >= 0.5) & (share < 0.9),
        "tail categories": share >= 0.9,
    }
