"""The clicks that a block's steps run a query's memory over: what it clicked since its base, then the block's."""

from typing import NamedTuple

import numpy as np

from model.folds import QueryFold, gap_of
from model.settings.model import DATConfig

Array = np.ndarray


class Tails:
    """The newest clicks of each query within the window, at most ``span``; a query without any takes no memory.

    items: [Q, span] rows, the k-th click of the window at k mod span · since: [Q, span] ms since the query's click
    before, −1: there was none.
    """

    def __init__(self, queries: int, span: int):
        self.items, self.since = np.zeros((queries, span), np.int32), np.zeros((queries, span), np.int64)

    @property
    def span(self) -> int:
        return self.items.shape[1]


class Stretch(NamedTuple):
    """Of each of the G queries of a block the clicks since its base, and then the block's: T in all.

    rows: [G] query rows · first: [G] the number, within the window, of each query's first click here · until: [G] that
    behind its last · starts: [G] where its clicks begin · items: [T] · since: [T], see :class:`Tails` · gap: [T, 5].
    """

    rows: Array
    first: Array
    until: Array
    starts: Array
    items: Array
    since: Array
    gap: Array

    @classmethod
    def of(cls, tails: Tails, base_at: Array, fold: QueryFold, before: Array, config: DATConfig) -> "Stretch":
        """Of a block.

        Args:
            base_at: [Q] clicks of the window that each query's base has folded. before: [G] those before the block.
        """
        groups, rows = fold.groups, fold.rows
        first, counts = base_at[rows], groups.counts
        tail = before - first
        sizes = tail + counts
        starts = np.cumsum(sizes) - sizes
        items, since = np.empty(sizes.sum(), np.int32), np.empty(sizes.sum(), np.int64)
        owner = np.repeat(np.arange(len(rows)), tail)
        number = np.arange(len(owner)) - np.repeat(np.cumsum(tail) - tail, tail)
        place = starts[owner] + number, (rows[owner], (first[owner] + number) % tails.span)
        items[place[0]], since[place[0]] = tails.items[place[1]], tails.since[place[1]]
        here, last = (starts + tail)[groups.key] + groups.rank, fold.counted.last_click.before()
        items[here] = fold.item_rows
        since[here] = np.where(last > 0, np.maximum(fold.times - last, 0), -1)
        # Any two moments so far apart have this gap.
        gap = gap_of(config, np.minimum(since, 0) + 1, since + 1)
        assert gap is not None
        return cls(rows, first, before + counts, starts, items, since, gap)

    def places(self, keys: Array, numbers: Array) -> Array:
        """[N] where clicks stand, of some queries (their rows [N]) by their numbers within the window."""
        at = np.searchsorted(self.rows, keys)
        return self.starts[at] + numbers - self.first[at]

    def keep(self, tails: Tails) -> None:
        """Write the newest clicks to the tails."""
        sizes = np.minimum(self.until - self.first, tails.span)
        owner = np.repeat(np.arange(len(self.rows)), sizes)
        number = np.arange(len(owner)) - np.repeat(np.cumsum(sizes) - self.until, sizes)
        places = self.starts[owner] + number - self.first[owner]
        at = self.rows[owner], number % tails.span
        tails.items[at], tails.since[at] = self.items[places], self.since[places]
