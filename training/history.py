"""Each click's history, the items that its query clicked just before it, for the models that read sequences."""

import numpy as np

from training.replay import Replay

Array = np.ndarray


def before_each(queries: Array, items: Array, length: int) -> Array:
    """From N clicks in order of time: [N, length] the query's earlier items, newest first; −1 where there are none."""
    order = np.argsort(queries, kind="stable")
    starts = np.searchsorted(queries[order], queries[order])
    places = np.arange(len(order))[:, None] - 1 - np.arange(length)[None, :]
    rows = np.where(places >= starts[:, None], items[order][np.maximum(places, 0)], -1)
    history = np.empty_like(rows)
    history[order] = rows
    return history


def in_replay(replay: Replay, rows: slice, length: int, live: bool) -> Array:
    """For clicks ``rows`` of a replay: [B, length] items before each, newest first; static: before the cut."""
    order, place, starts = replay.by_query
    queries = replay.queries[rows]
    since = place[rows] - starts[queries] if live else np.zeros(len(queries), np.int64)
    k = np.arange(length)[None, :]
    at = np.maximum(place[rows][:, None] - 1 - k, 0)
    recent = replay.items[order[at]]
    rings, clicks = replay.query.history[queries], replay.query.clicks[queries]
    size = max(rings.shape[1], 1)
    nth = clicks[:, None] - 1 - (k - since[:, None])  # the number of the click, as long as it lies before the cut
    inside = (nth >= 0) & (nth >= clicks[:, None] - size) & (nth < clicks[:, None])
    old = (
        np.where(inside, np.take_along_axis(rings, nth % size, axis=1), -1) if rings.shape[1] else np.full_like(nth, -1)
    )
    return np.where(k < since[:, None], recent, old)
