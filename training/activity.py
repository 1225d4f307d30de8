"""Decayed counters: how much has been clicked lately, with O(1) state and no windows.

A counter with half-life h that stood at c at time t is worth ``c · 2^−(t'−t)/h`` at t'. A click adds one. The same
functions serve Spark, the trainer, the stream and the service, so that what a tower reads live is what it read in
training at that moment.
"""

import numpy as np

from training.amm import ranks_within

Array = np.ndarray


def decay(counters: Array, since_ms: Array, half_lives_ms: tuple[int, ...]) -> Array:
    """Counters [N, H] after ``since_ms`` [N] without a click. Time that runs backwards does not decay."""
    elapsed = np.maximum(since_ms, 0)[:, None] / np.asarray(half_lives_ms, np.float64)
    return (counters * np.exp2(-elapsed)).astype(np.float32)


def count(
    counters: Array, last_ms: Array, groups: Array, times_ms: Array, half_lives_ms: tuple[int, ...]
) -> tuple[Array, Array]:
    """Count a batch of clicks: counters [G, H] as of ``last_ms`` [G] → the same as of each key's latest click.

    Counting is exact in any order: a late click adds what it would be worth by now.

    Args:
        groups: [N] for each click its key's row.
        times_ms: [N] event times.
    """
    latest = last_ms.copy()
    np.maximum.at(latest, groups, times_ms)
    decayed = decay(counters, latest - last_ms, half_lives_ms)
    np.add.at(
        decayed,
        groups,
        decay(np.ones((len(groups), counters.shape[1]), np.float32), latest[groups] - times_ms, half_lives_ms),
    )
    return decayed, latest


def count_each(times_ms: Array, groups: Array, half_lives_ms: tuple[int, ...], added: Array | None = None) -> Array:
    """Counters just after each of N clicks, which are in order of time: [N] keys → [N, H], from nothing.

    ``added``: [N, H] what each click adds; None: one to every counter.

    Round r handles every key's r-th click, so the loop is as long as the busiest key and each round is one array
    operation.
    """
    ranks = ranks_within(groups)
    counters = np.ones((len(groups), len(half_lives_ms)), np.float32) if added is None else added.copy()
    order = np.lexsort((np.arange(len(groups)), groups))
    position = np.empty(len(groups), np.int64)
    position[order] = np.arange(len(groups))
    by_rank = np.argsort(ranks, kind="stable")
    bounds = np.searchsorted(ranks[by_rank], np.arange(1, ranks.max(initial=0) + 2))
    for start, stop in zip(bounds[:-1], bounds[1:], strict=True):
        rows = by_rank[start:stop]
        previous = order[position[rows] - 1]
        counters[rows] += decay(counters[previous], times_ms[rows] - times_ms[previous], half_lives_ms)
    return counters
