"""The items that a query clicked just before a moment, newest first: in training, in a replay and in the stream."""

import numpy as np

from training.amm import ranks_within
from training.replay import Replay

Array = np.ndarray


def before_each(queries: Array, items: Array, length: int, known: Array) -> Array:
    """From N clicks in order of time: [N, length] the query's earlier items, newest first; −1 where there are none.

    Args:
        queries: [N]; one of row −1 is unknown, and nothing is known of its past.
        known: [N] how many of the clicks each may know: those before itself, or fewer.
    """
    order = np.argsort(queries, kind="stable")
    by_query = queries[order] * (len(order) + 1) + order
    until = np.searchsorted(by_query, queries * (len(order) + 1) + known)  # where in the order its past ends
    since = np.where(queries < 0, 0, until - np.searchsorted(by_query, queries * (len(order) + 1)))
    history = np.full((len(order), length), -1, np.int32)
    for k in range(length):  # a column at a time: whole, the places alone would take five times the result
        some = np.flatnonzero(since > k)
        history[some, k] = items[order[until[some] - 1 - k]]
    return history


def newest(rings: Array, clicks: Array, length: int, skip: Array | int = 0) -> Array:
    """The latest items of N rings: [N, length], newest first; −1 where there are none.

    Args:
        rings: [N, H], in which the k-th click ever is at k mod H. clicks: [N] clicks ever.
        skip: [N] places at the front that stay free, for items that are newer than the rings.
    """
    size = rings.shape[1]
    if not size:
        return np.full((len(rings), length), -1, rings.dtype)
    k = np.arange(length) - np.broadcast_to(skip, len(rings))[:, None]
    number = clicks[:, None] - 1 - k
    inside = (k >= 0) & (k < size) & (number >= 0)
    return np.where(inside, np.take_along_axis(rings, number % size, axis=1), -1)


def in_batch(queries: Array, items: Array, rings: Array, clicks: Array, length: int) -> Array:
    """What was clicked just before each of N clicks in order of time: [N, length], newest first.

    Args:
        queries: [N] the clicks' rows in ``rings`` [G, H], which like ``clicks`` [G] are from before the first.
    """
    order, since = np.argsort(queries, kind="stable"), ranks_within(queries)
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    return _before(order, place, since, items, rings[queries], clicks[queries], length)


def in_replay(replay: Replay, rows: slice, length: int, live: bool) -> Array:
    """For clicks ``rows`` of a replay: [B, length] items before each, newest first; static: before the cut."""
    order, place, starts = replay.by_query
    queries, place = replay.queries[rows], place[rows]
    since = place - starts[queries] if live else np.zeros(len(queries), np.int64)
    rings, clicks = replay.query.history[queries], replay.query.clicks[queries]
    return _before(order, place, since, replay.items, rings, clicks, length)


def _before(order: Array, place: Array, since: Array, items: Array, rings: Array, clicks: Array, length: int) -> Array:
    """For some clicks, each with its place in ``order`` (by query, then time), how many of its query's clicks come
    before it there, and its query's ring from before them all. No more are known than a ring would hold.
    """
    k = np.arange(length)[None, :]
    recent = items[order[np.maximum(place[:, None] - 1 - k, 0)]]
    history = np.where(k < since[:, None], recent, newest(rings, clicks, length, since))
    history[:, rings.shape[1] :] = -1
    return history


def tower_rows(history: Array, known: int) -> Array:
    """Rows of the tower's embedding of latest items: 0 for none (−1), and for items that training did not see."""
    return np.where(history < known, history + 1, 0)
