"""What each click of a batch finds: the decayed counters of its key from before it.

:func:`training.activity.count` gives the counters after a whole batch. A tower that answers a click may read only what
was known before it, so the stream needs all the values in between, without a loop over clicks.
"""

from typing import NamedTuple

import numpy as np

from training.amm import compose, ranks_within

Array = np.ndarray


class Activity(NamedTuple):
    """Counters around N clicks on G keys with H half-lives.

    before: [N, H] just before each click, as of ``before_last``.
    before_last: [N] ms, the key's latest click until then (0: none).
    after: [G, H] after the key's last click, as of ``latest``.
    latest: [G] ms.
    """

    before: Array
    before_last: Array
    after: Array
    latest: Array


def activity(
    counters: Array,
    last_ms: Array,
    groups: Array,
    times_ms: Array,
    half_lives_ms: tuple[int, ...],
    added: Array | None = None,
) -> Activity:
    """Count a batch of clicks, in order within a key; a click that is late adds what it would be worth by now.

    Args:
        counters: [G, H] as of ``last_ms`` [G].
        groups: [N] for each click its key's row.
        times_ms: [N] event times.
        added: [N, H] what each click adds; None: one to every counter.

    With T the latest time so far, a click maps counters as ``c → c · 2^−ΔT/h + 2^−(T−t)/h``. Such maps compose, so all
    the values come out of a segmented scan, as in :func:`training.amm.fold`.
    """
    size, half_lives = len(groups), np.asarray(half_lives_ms, np.float64)
    ranks = ranks_within(groups)
    order = np.lexsort((ranks, groups))
    key, rank, times = groups[order], ranks[order], times_ms[order]
    first = rank == 0
    # The running maximum within each key: keys are moved apart by more than times can differ, so one pass serves all.
    apart = int(max(times.max(initial=0), last_ms.max(initial=0))) + 1
    latest = np.maximum.accumulate(np.maximum(times, np.where(first, last_ms[key], 0)) + key * apart) - key * apart
    previous = np.where(first, last_ms[key], np.r_[0, latest[:-1]][:size])
    keep = np.exp2(-(latest - previous)[:, None] / half_lives)
    add = np.exp2(-(latest - times)[:, None] / half_lives)
    if added is not None:
        add *= added[order]
    keep, add = compose(keep, add, rank)
    inclusive = keep * counters[key] + add
    shifted = np.where(first[:, None], counters[key], np.concatenate([inclusive[:1], inclusive[:-1]]))
    before, before_last = np.empty_like(shifted), np.empty_like(previous)
    before[order], before_last[order] = shifted, previous
    after, after_last = counters.copy(), last_ms.copy()
    last = np.flatnonzero(np.r_[key[1:] != key[:-1], True]) if size else np.empty(0, np.int64)
    after[key[last]], after_last[key[last]] = inclusive[last], latest[last]
    return Activity(before.astype(np.float32), before_last, after.astype(np.float32), after_last)


def group(ids: list[str]) -> tuple[list[str], Array]:
    """The distinct ids in order of appearance, and for each of N ids its place among them: [N]."""
    places: dict[str, int] = {}
    groups = np.fromiter((places.setdefault(key, len(places)) for key in ids), np.int64, len(ids))
    return list(places), groups
