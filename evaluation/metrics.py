"""Hit rates, NDCG and mean reciprocal rank of ranks, and of parts of the test clicks."""

import numpy as np
from pydantic import BaseModel

from evaluation.test_clicks import TestClicks
from model.hit_rates import hit_rates

Array = np.ndarray
MISS = np.iinfo(np.int64).max
CUTOFFS = (10, 20, 50, 100)
SEEN_BANDS = {"0": (0, 0), "1": (1, 1), "2-4": (2, 4), "5-19": (5, 19), "20+": (20, MISS)}


class Metrics(BaseModel):
    """hr*: share of the clicks whose item is among the first N · ndcg*: the same, an item at rank r counting
    1 / log2(1 + r) · mrr10: ten times the mean of 1 / rank."""

    clicks: int
    hr10: float
    hr20: float
    hr50: float
    hr100: float
    ndcg10: float
    ndcg20: float
    ndcg50: float
    ndcg100: float
    mrr10: float

    @classmethod
    def of(cls, ranks: Array) -> "Metrics":
        """Of [N] ranks, 1 = first; :data:`MISS` counts nothing."""
        values = hit_rates(np.where(ranks == MISS, 0, ranks), CUTOFFS)
        for cutoff in CUTOFFS:
            gains = 1 / np.log2(1 + ranks[ranks <= cutoff].astype(np.float64))
            values[f"ndcg{cutoff}"] = float(gains.sum() / max(1, len(ranks)))
        return cls(clicks=len(ranks), **values)


def objective(metrics: Metrics) -> float:
    """What settings are chosen by: the geometric mean of HR@50, HR@100 and MRR×10, so that a per cent of each counts
    the same."""
    return (metrics.hr50 * metrics.hr100 * metrics.mrr10) ** (1 / 3)


class Report(BaseModel):
    """Metrics of all test clicks and of parts of them."""

    all: Metrics
    parts: dict[str, Metrics]


def report(ranks: Array, test: TestClicks) -> Report:
    """Metrics of all, by how many clicks the query had made, for new queries and items, and by category size."""
    clicks = test.clicks
    before = test.clicks_before
    masks = {f"seen {name}": (before >= low) & (before <= high) for name, (low, high) in SEEN_BANDS.items()}
    masks["new queries"] = clicks.queries >= test.queries.trained
    masks["new items"] = clicks.items >= test.items.trained
    masks["known"] = ~masks["new queries"] & ~masks["new items"]
    masks.update(_by_category_size(test))
    scored = np.ones(len(ranks), bool) if test.scored is None else test.scored
    parts = {name: Metrics.of(ranks[mask & scored]) for name, mask in masks.items()}
    return Report(all=Metrics.of(ranks[scored]), parts=parts)


def _by_category_size(test: TestClicks) -> dict[str, Array]:
    """Clicks on the categories that hold the first half of all training clicks, the next 40 %, and the rest."""
    sizes = np.bincount(test.item_category, test.items.clicks)
    if (sizes > 0).sum() < 3:
        return {}
    order = np.argsort(-sizes, kind="stable")
    before = np.empty(len(sizes))
    before[order] = (np.cumsum(sizes[order]) - sizes[order]) / sizes.sum()
    share = before[test.item_category[test.clicks.items]]
    return {
        "head categories": share < 0.5,
        "middle categories": (share >= 0.5) & (share < 0.9),
        "tail categories": share >= 0.9,
    }
