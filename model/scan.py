"""Affine recurrences over clicks: every click maps its key's state as ``x → keep · x + add``.

Augmented vectors and decayed counters are such recurrences. Maps compose, so one segmented scan gives the state around
every click of a batch: ``log2(longest run)`` passes over the arrays, however often one key was clicked.
"""

from dataclasses import dataclass

import numpy as np

Array = np.ndarray


@dataclass(frozen=True)
class Groups:
    """N clicks on G keys.

    key: [N] the row of each click's key, below ``size`` · rank: [N] how many earlier clicks of the batch have the same
    key · order: [N] the clicks by key, then in their own order · place: [N] the inverse of ``order``.
    """

    key: Array
    size: int
    rank: Array
    order: Array
    place: Array

    @classmethod
    def of(cls, key: Array, size: int) -> "Groups":
        order = np.argsort(key, kind="stable")
        ordered = key[order]
        starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]]) if len(key) else np.empty(0, np.int64)
        lengths = np.diff(np.r_[starts, len(key)])
        rank, place = np.empty(len(key), np.int64), np.empty(len(key), np.int64)
        rank[order] = np.arange(len(key)) - np.repeat(starts, lengths)
        place[order] = np.arange(len(key))
        return cls(key, size, rank, order, place)

    @property
    def counts(self) -> Array:
        """[G] clicks of each key."""
        return np.bincount(self.key, minlength=self.size)

    @property
    def last(self) -> Array:
        """Places (in ``order``) of each clicked key's last click."""
        ordered = self.key[self.order]
        return np.flatnonzero(np.r_[ordered[1:] != ordered[:-1], True]) if len(ordered) else np.empty(0, np.int64)

    def before_moment(self, moments: Array) -> Array:
        """[N] how many clicks of the same key come before each click's moment.

        Args:
            moments: [N] ascending; clicks of one moment do not know of each other.
        """
        key, moment = self.key[self.order], moments[self.order]
        new = np.r_[True, (key[1:] != key[:-1]) | (moment[1:] != moment[:-1])] if len(key) else np.empty(0, bool)
        first = np.flatnonzero(new)[np.cumsum(new) - 1]
        visible = np.empty(len(key), np.int64)
        visible[self.order] = self.rank[self.order][first]
        return visible


@dataclass(frozen=True)
class Scan:
    """The states around N clicks on G keys.

    groups: The clicks. start: [G, ...] the keys' states before the batch. inclusive: [N, ...] the state just after each
    click, in ``groups.order``.
    """

    groups: Groups
    start: Array
    inclusive: Array

    def before(self, visible: Array | None = None) -> Array:
        """[N, ...] each click's key before it.

        Args:
            visible: [N] how many of the key's earlier clicks of the batch count; None: all of them.
        """
        groups = self.groups
        visible = groups.rank if visible is None else visible
        state = self.start[groups.key]
        some = np.flatnonzero(visible > 0)
        state[some] = self.inclusive[groups.place[some] - groups.rank[some] + visible[some] - 1]
        return state

    def after(self) -> Array:
        """[G, ...] each key after its last click."""
        state, last = self.start.copy(), self.groups.last
        state[self.groups.key[self.groups.order[last]]] = self.inclusive[last]
        return state


def scan(groups: Groups, start: Array, keep: Array, add: Array) -> Scan:
    """Run the recurrence.

    Args:
        start: [G, ...] the keys' states before the batch.
        keep, add: [N, ...] of each click, in the clicks' own order; they broadcast against each other.
    """
    rank = groups.rank[groups.order]
    keep, add = np.broadcast_arrays(keep[groups.order], add[groups.order])
    keep, add = keep.copy(), add.copy()
    reach, longest = 1, int(rank.max(initial=0))
    while reach <= longest:
        rows = np.flatnonzero(rank >= reach)
        # The right-hand sides are computed whole before they are stored, so each reads the previous pass.
        add[rows] = keep[rows] * add[rows - reach] + add[rows]
        keep[rows] = keep[rows] * keep[rows - reach]
        reach *= 2
    return Scan(groups, start, keep * start[groups.key[groups.order]] + add)


def running_maximum(groups: Groups, values: Array) -> Array:
    """[N] the largest value of each click's key so far, itself included; values and result in ``groups.order``."""
    rank, latest = groups.rank[groups.order], values.copy()
    if (np.diff(values, prepend=values[:1])[rank > 0] >= 0).all():
        return latest
    reach, longest = 1, int(rank.max(initial=0))
    while reach <= longest:
        rows = np.flatnonzero(rank >= reach)
        latest[rows] = np.maximum(latest[rows], latest[rows - reach])
        reach *= 2
    return latest
