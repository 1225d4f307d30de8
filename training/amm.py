"""The Adaptive-Mimic Mechanism (paper, section 2.2.2, eq. 2) as a fold over clicks.

For one positive pair the gradient of eq. 2's ``‖a_u − sg(p_v)‖²`` with respect to a_u is ``2 (a_u − p_v)``, so one SGD
step with learning rate α/2 is ``a_u ← a_u + α (p_v − a_u)``: an exponential moving average towards p_v. Training
(point-in-time mode) and streaming both run :func:`fold`; a test holds it against autograd.
"""

from typing import NamedTuple

import numpy as np

Array = np.ndarray


class Folded(NamedTuple):
    """What :func:`fold` returns, for N clicks on G different keys.

    before: [N, M, d] the key's augmented vector just before each click.
    after: [G, M, d] the augmented vector after the key's last click, by key in the order of ``groups``.
    """

    before: Array
    after: Array


def steps(clicks_before: Array, memories: tuple[float, ...]) -> Array:
    """Step sizes ``max(α, 1/(n+1))``: [N] clicks folded before → [N, M]. The first click counts fully."""
    return np.maximum(np.asarray(memories, np.float32), 1.0 / (clicks_before[:, None] + 1.0)).astype(np.float32)


def ranks_within(groups: Array) -> Array:
    """For each of N clicks, how many earlier clicks of the batch have the same key: [N] → [N]."""
    order = np.argsort(groups, kind="stable")
    ordered = groups[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    lengths = np.diff(np.r_[starts, len(ordered)])
    ranks = np.empty(len(groups), np.int64)
    ranks[order] = np.arange(len(groups)) - np.repeat(starts, lengths)
    return ranks


def compose(keep: Array, add: Array, rank: Array) -> tuple[Array, Array]:
    """Compose the affine maps ``x → keep·x + add`` of each key's clicks, from its first up to each: a segmented scan.

    Args:
        keep, add: [N, …] in order of key, then of click.
        rank: [N] how many clicks of the same key come before: its run of rows starts at rank 0.

    ``log2(longest run)`` passes over the arrays.
    """
    keep, add = keep.copy(), add.copy()
    reach = 1
    while reach <= rank.max(initial=0):
        rows = np.flatnonzero(rank >= reach)
        # The right-hand sides are computed whole before they are stored, so each reads the previous pass.
        add[rows] = keep[rows] * add[rows - reach] + add[rows]
        keep[rows] = keep[rows] * keep[rows - reach]
        reach *= 2
    return keep, add


def fold(state: Array, clicks: Array, groups: Array, targets: Array, memories: tuple[float, ...]) -> Folded:
    """Fold a batch of clicks, in order within a key, into augmented vectors: eq. 2's SGD step, one click at a time.

    Args:
        state: [G, M, d] the augmented vectors of the G keys before the batch.
        clicks: [G] how many clicks each has folded so far.
        groups: [N] for each click, in order, its key's row in ``state``.
        targets: [N, d] the other tower's output for each click; a stop-gradient by nature.
        memories: M step sizes α.

    Each step is the affine map ``a → (1−η) a + η p``. Maps compose, so all prefixes come out of a segmented scan:
    ``log2(longest run)`` passes over [N, M, d], however often one key was clicked.
    """
    ranks = ranks_within(groups)
    order = np.lexsort((ranks, groups))
    key, rank = groups[order], ranks[order]
    eta = steps(clicks[key] + rank, memories)[:, :, None]
    keep = 1.0 - eta  # [N, M, 1]
    add = eta * targets[order][:, None, :]  # [N, M, d]
    keep, add = compose(keep, add, rank)
    inclusive = keep * state[key] + add
    before_sorted = state[key].copy()
    later = np.flatnonzero(rank > 0)
    before_sorted[later] = inclusive[later - 1]
    before = np.empty_like(before_sorted)
    before[order] = before_sorted
    after = state.copy()
    last = np.flatnonzero(np.r_[key[1:] != key[:-1], True]) if len(key) else np.empty(0, np.int64)
    after[key[last]] = inclusive[last]
    return Folded(before, after)
