"""Whether a difference between two models would hold for other people: a paired bootstrap over queries."""

from collections.abc import Callable

import numpy as np

from evaluation.metrics import MISS

Array = np.ndarray
METRICS = ("hr50", "hr100", "mrr10")
AT_ONCE = 50  # resamples
GAIN, SURE = 0.01, 0.9
"""A setting is better than another if it gains such a share, and in such a share of the resamples: less is chance."""


def difference(
    ours: list[Array], theirs: list[Array], queries: Array, resamples: int = 1_000, seed: int = 0
) -> dict[str, tuple[float, float, float]]:
    """By metric: how much more ours finds, and the 95 % interval over resampled queries.

    Args:
        ours, theirs: Of each run, the rank of each of N test clicks; runs are averaged. queries: [N] who clicked.
    """
    means_of, found = _resampled(queries, resamples, seed), {}
    for name in METRICS:
        gap = np.mean([_gain(r, name) for r in ours], axis=0) - np.mean([_gain(r, name) for r in theirs], axis=0)
        means = means_of(gap)
        low, high = np.quantile(means, (0.025, 0.975))
        found[name] = (float(gap.mean()), float(low), float(high))
    return found


def share_better(ours: Array, theirs: Array, queries: Array, resamples: int = 1_000, seed: int = 0) -> float:
    """The share of resamples of the queries in which the geometric mean of ours' metrics is above that of theirs.

    Args:
        ours, theirs: The rank of each of N test clicks. queries: [N] who clicked.
    """
    means_of = _resampled(queries, resamples, seed)
    values = [_geometric(ranks, means_of) for ranks in (ours, theirs)]
    return float(np.mean(values[0] > values[1]))


def sure_of_best(
    tried: list[Array], theirs: Array, best: int, queries: Array, resamples: int = 1_000, seed: int = 0
) -> float:
    """How sure it is that the best of several is better than theirs: of many one is always best by chance.

    The share of resamples in which no gain lies as far above its own mean, in standard deviations, as the best one's
    does above 0 (White's reality check, 2000; studentised as by Hansen, 2005).

    Args:
        tried, theirs: The rank of each of N test clicks. best: which of those tried. queries: [N] who clicked.
    """
    means_of = _resampled(queries, resamples, seed)
    base = _geometric(theirs, means_of)
    gains = np.stack([_geometric(ranks, means_of) - base for ranks in tried])
    mean, deviation = gains.mean(1, keepdims=True), np.maximum(gains.std(1, keepdims=True), 1e-12)
    by_chance = ((gains - mean) / deviation).max(axis=0)
    return float(np.mean(by_chance < (mean / deviation)[best]))


def _resampled(queries: Array, resamples: int, seed: int) -> Callable[[Array], Array]:
    """Gives, of a value a click [N], its mean in each resample of the queries."""
    _, owner = np.unique(queries, return_inverse=True)
    people = int(owner.max(initial=-1)) + 1
    clicks = np.bincount(owner, minlength=people)
    rng, weights = np.random.default_rng(seed), []
    for start in range(0, resamples, AT_ONCE):
        drawn = rng.integers(0, people, (min(AT_ONCE, resamples - start), people))
        weights.append(np.stack([np.bincount(row, minlength=people) for row in drawn]))
    sizes = np.concatenate([w @ clicks for w in weights])

    def means(values: Array) -> Array:
        total = np.bincount(owner, values, people)
        return np.concatenate([w @ total for w in weights]) / sizes

    return means


def _geometric(ranks: Array, means_of: Callable[[Array], Array]) -> Array:
    """In each resample the geometric mean of the metrics."""
    return np.cbrt(np.prod([means_of(_gain(ranks, name)) for name in METRICS], axis=0))


def _gain(ranks: Array, metric: str) -> Array:
    if metric == "mrr10":
        return np.where(ranks == MISS, 0.0, 10 / ranks.astype(np.float64))
    return (ranks <= int(metric[2:])).astype(np.float64)
