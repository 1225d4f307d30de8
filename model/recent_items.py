"""A query's recent items, as a ring: the k-th click ever is at k mod L.

Histories travel as lists of item ids, newest last; rings hold rows of the item state (−1: empty).
"""

import numpy as np
import pyarrow as pa

from model.ids import Ids
from model.scan import Groups

Array = np.ndarray


def newest(rings: Array, clicks: Array, length: int, skip: Array | int = 0) -> Array:
    """The recent items of N rings: [N, length], newest first; −1 where there are none.

    Args:
        rings: [N, L]. clicks: [N] clicks ever.
        skip: [N] places at the front that stay free, for items that are newer than the rings.
    """
    size = rings.shape[1]
    if not size:
        return np.full((len(rings), length), -1, rings.dtype)
    k = np.arange(length) - np.broadcast_to(skip, len(rings))[:, None]
    number = clicks[:, None] - 1 - k
    inside = (k >= 0) & (k < size) & (number >= 0)
    return np.where(inside, np.take_along_axis(rings, number % size, axis=1), -1)


def before(
    groups: Groups, visible: Array, items: Array, rings: Array, clicks: Array, length: int, of: slice = slice(None)
) -> Array:
    """The recent items before N clicks: [N, length], newest first; never more than a ring holds.

    Args:
        groups: Clicks on G queries. visible: how many earlier clicks of the batch each click knows.
        items: What was clicked. rings: [G, L] and clicks: [G], from before the batch.
        of: Which clicks, of those that ``groups``, ``visible`` and ``items`` have.
    """
    k, key, visible = np.arange(length)[None, :], groups.key[of], visible[of]
    start = (groups.place - groups.rank)[of]
    recent = items[groups.order[np.maximum((start + visible)[:, None] - 1 - k, 0)]] if len(items) else items[:, None]
    history = np.where(k < visible[:, None], recent, newest(rings[key], clicks[key], length, visible))
    history[:, rings.shape[1] :] = -1
    return history


def append(groups: Groups, items: Array, rings: Array, clicks: Array) -> Array:
    """Rings [G, L] after N clicks; ``clicks`` [G] is the count before them."""
    after = rings.copy()
    if rings.shape[1]:
        # By key, then in the order of the clicks: a later click overwrites an earlier one, as a ring does.
        key, number = groups.key[groups.order], (clicks[groups.key] + groups.rank)[groups.order]
        after[key, number % rings.shape[1]] = items[groups.order]
    return after


def to_lists(rings: Array, clicks: Array) -> tuple[Array, Array]:
    """Rings [G, L] → item rows, oldest first, of all histories one after the other; and their offsets [G+1] int32."""
    length = rings.shape[1]
    if not length:
        return np.empty(0, rings.dtype), np.zeros(len(rings) + 1, np.int32)
    oldest = np.where(clicks > length, clicks % length, 0)
    ordered = np.take_along_axis(rings, (oldest[:, None] + np.arange(length)) % length, axis=1)
    filled = ordered >= 0
    return ordered[filled], np.r_[0, np.cumsum(filled.sum(1))].astype(np.int32)


def from_lists(rows: Array, offsets: Array, clicks: Array, length: int) -> Array:
    """The opposite of :func:`to_lists`: rings [G, length] int32 after ``clicks`` [G] clicks."""
    rings = np.full((len(clicks), length), -1, np.int32)
    if length:
        sizes = np.diff(offsets).astype(np.int64)
        owner = np.repeat(np.arange(len(clicks)), sizes)
        place = np.arange(len(owner)) - np.repeat(offsets[:-1].astype(np.int64) - offsets[0], sizes)
        number = clicks[owner] - sizes[owner] + place  # the list ends with click number clicks − 1
        kept = place >= sizes[owner] - length
        rings[owner[kept], number[kept] % length] = rows[kept]
    return rings


def as_lists(rings: Array, clicks: Array, ids: Ids | None) -> pa.ListArray:
    """Rings as lists, newest last, of the ids of their items; None: of their rows."""
    rows, offsets = to_lists(rings, clicks)
    values = pa.array(rows, pa.int32()) if ids is None else ids.take(rows).cast(pa.string())
    return pa.ListArray.from_arrays(pa.array(offsets), values)


def embedding_rows(history: Array, known: int) -> Array:
    """Rows of the tower's embedding of recent items: 0 for none (−1), and for items that training did not see."""
    return np.where(history < known, history + 1, 0)
