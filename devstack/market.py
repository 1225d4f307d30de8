"""A made-up market with a known law of clicks, at any size: every click is a function of the seed and its number.

A click's moment falls in a day by the hour (few at night, most in the evening). Its query is drawn from those that have
arrived by then, few of which have most clicks. What it is on follows from

    P(v | q, t) = P(c | q, day) · P(s | q, c, day) · pop(v) · 1{opened(v) ≤ t} / Σ pop of the cell's items open at t

with c and s the item's category and style, which make its cell:

- P(c | q, day) = ``ROAM`` · w(c, day) + (1 − ROAM) · taste. The taste is all on the query's first category at the first
  day and all on its second at the last: it drifts. w are the shares of the nine categories (the largest has a hundred
  times the smallest), each with a weekly wave of its own: trends.
- P(s | q, c, day) = ``BROWSE`` / S + (1 − BROWSE) · 1{s = style(q, c, week)}: a style that no feature shows, which a
  query changes from one week to the next.
- pop(v) = appeal(v) · 2^(opened(v) / ``FADE``): new items have the attention, which halves every ``FADE`` days. Since
  all fade alike, the age cancels in the fraction, and what is open at a moment is the beginning of a cell's list.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from model import splitmix

Array = np.ndarray
DAY_MS = 86_400_000
SHARES = np.array([0.40, 0.22, 0.14, 0.09, 0.06, 0.045, 0.03, 0.011, 0.004])
STYLES = 8
ROAM = 0.15
BROWSE = 0.2
FADE = 7.0
WAVE = 0.4
STOCK = 0.7  # share of the queries and items that are there from the beginning; the others arrive at an even pace
SESSION = 3  # clicks that a query makes in a row
AT_ONCE = 1 << 20
HOURS = 1 + 0.9 * np.cos(2 * np.pi * (np.arange(24) + 0.5 - 20) / 24)  # weights of the hours of a day


def uniform(seed: int, what: int, keys: Array) -> Array:
    """Numbers in [0, 1) that depend on the seed, on what they are for, and on the key alone."""
    start = np.uint64(((seed * 1_000_003 + what) * int(splitmix.STEP)) % 2**64)
    return splitmix.unit(splitmix.mix(splitmix.mix(keys.astype(np.uint64) + start)))


@dataclass(frozen=True)
class Market:
    """The law for so many queries, items and days from ``start_ms`` (a midnight, UTC). Items and queries are numbered
    in the order in which they appear."""

    queries: int
    items: int
    days: int
    seed: int = 0
    start_ms: int = 1_767_225_600_000  # 2026-01-01

    @property
    def span_ms(self) -> int:
        return self.days * DAY_MS

    def arrival(self, number: Array, size: int) -> Array:
        """When the k-th of ``size`` appears, in days from the start: some weeks before it, or on one of the days."""
        share = number / size
        stock = -60 * (1 - share / STOCK) - 0.001
        return np.where(share < STOCK, stock, (share - STOCK) / (1 - STOCK) * self.days)

    def there(self, day: Array, size: int) -> Array:
        """How many of ``size`` have appeared by a moment (days from the start): the inverse of :meth:`arrival`."""
        share = STOCK + (1 - STOCK) * np.clip(day, 0, self.days) / self.days
        return np.minimum(np.floor(share * size).astype(np.int64) + 1, size)

    @cached_property
    def category(self) -> Array:
        """[items] codes, the largest first."""
        return np.searchsorted(np.cumsum(SHARES), uniform(self.seed, 1, np.arange(self.items)), side="right").clip(
            max=8
        )

    @cached_property
    def style(self) -> Array:
        """[items] 0 … S−1, which no feature shows."""
        return (uniform(self.seed, 2, np.arange(self.items)) * STYLES).astype(np.int64)

    @cached_property
    def opened(self) -> Array:
        """[items] days from the start, rising."""
        return self.arrival(np.arange(self.items), self.items)

    @cached_property
    def popularity(self) -> Array:
        """[items] pop(v), up to a factor."""
        appeal = (1 - uniform(self.seed, 3, np.arange(self.items))) ** -0.6  # a heavy tail
        return appeal * 2 ** ((self.opened - self.days) / FADE)

    @cached_property
    def cells(self) -> tuple[Array, Array, Array, Array]:
        """Items by cell (category · S + style), then by age; where each cell begins [9·S+1]; running popularity; and a
        key that rises along the list, from the cell and the item's number."""
        cell = self.category * STYLES + self.style
        order = np.argsort(cell, kind="stable")
        starts = np.searchsorted(cell[order], np.arange(len(SHARES) * STYLES + 1))
        return order, starts, np.r_[0.0, np.cumsum(self.popularity[order])], cell[order] * (self.items + 1) + order

    @cached_property
    def activity(self) -> Array:
        """[queries+1] running weights: a few queries have most clicks."""
        running = np.zeros(self.queries + 1)
        for start in range(0, self.queries, AT_ONCE):
            weight = (1 - uniform(self.seed, 4, np.arange(start, min(start + AT_ONCE, self.queries)))) ** -0.5
            weight[0] += running[start]
            np.cumsum(weight, out=running[start + 1 : start + 1 + len(weight)])
        return running

    def prepare(self) -> None:
        """Make the tables that all clicks need; what draws clicks in threads would make them twice."""
        _ = self.cells, self.activity

    def tastes(self, query: Array) -> tuple[Array, Array]:
        """A query's first and second category."""
        ends = np.cumsum(SHARES)
        first, second = (np.searchsorted(ends, uniform(self.seed, k, query), side="right").clip(max=8) for k in (5, 6))
        return first, second

    def shares(self, day: Array) -> Array:
        """w(c, day) of moments [N] in days: [N, 9], rows add up to 1."""
        wave = 1 + WAVE * np.sin(2 * np.pi * (day[:, None] / 7 + np.arange(9) * 0.37))
        return SHARES * wave / (SHARES * wave).sum(1, keepdims=True)

    def category_law(self, query: Array, day: Array) -> Array:
        """P(c | q, day) of N queries at their moments: [N, 9]."""
        drift = np.floor(day) / max(self.days - 1, 1)
        law, row = ROAM * self.shares(day), np.arange(len(query))
        for taste, weight in zip(self.tastes(query), (1 - drift, drift), strict=True):
            law[row, taste] += (1 - ROAM) * weight
        return law

    def liked_style(self, query: Array, category: Array, day: Array) -> Array:
        """style(q, c, week)."""
        week = np.floor(day / 7).astype(np.int64)
        return (uniform(self.seed, 7, (query * 9 + category) * 1_000 + week) * STYLES).astype(np.int64)

    def probability(self, query: Array, day: Array, item: Array) -> Array:
        """P(v | q, t): [N], of N queries at their moments (days from the start) and N items.

        An empty cell has no item to give its share to: clicks that fall on it are not made, so that the law is that of
        the clicks before they are left out. With more than a few hundred items there is none from the first day on.
        """
        category, style = self.category[item], self.style[item]
        p = self.category_law(query, day)[np.arange(len(query)), category]
        p *= BROWSE / STYLES + (1 - BROWSE) * (style == self.liked_style(query, category, day))
        _, low, high = self._open(category * STYLES + style, day)
        there = self.opened[item] <= day
        return np.divide(p * self.popularity[item], high - low, out=np.zeros(len(item)), where=there)

    def _open(self, cell: Array, day: Array) -> tuple[Array, Array, Array]:
        """How far each cell's list is open at a moment, and the running popularity at both ends of that part."""
        _, starts, running, key = self.cells
        stop = np.searchsorted(key, cell * (self.items + 1) + self.there(day, self.items))  # those with lower numbers
        return stop, running[starts[cell]], running[stop]

    def clicks(self, number: Array) -> tuple[Array, Array, Array]:
        """The clicks with these numbers: queries [M], items [M], times [M] in ms since the epoch. M is less than asked
        by those that fell on an empty cell or, at the end of a session, behind the last day."""
        seed = self.seed
        session = number // SESSION
        day = np.floor(uniform(seed, 10, session) * self.days)
        hour = np.searchsorted(np.cumsum(HOURS) / HOURS.sum(), uniform(seed, 11, session), side="right").clip(max=23)
        begin = ((day * 24 + hour + uniform(seed, 12, session)) * 3_600_000).astype(np.int64)
        arrived = self.activity[self.there(begin / DAY_MS, self.queries)]
        query = np.searchsorted(self.activity, uniform(seed, 13, session) * arrived, side="right") - 1
        wait = 20_000 + (-np.log1p(-uniform(seed, 14, number)) * 120_000).astype(np.int64)
        time = begin + wait * (number % SESSION)
        t = time / DAY_MS
        running_law = np.cumsum(self.category_law(query, t), axis=1)
        category = (running_law <= uniform(seed, 15, number)[:, None]).sum(1).clip(max=8)
        style = np.where(
            uniform(seed, 16, number) < BROWSE,
            (uniform(seed, 17, number) * STYLES).astype(np.int64),
            self.liked_style(query, category, t),
        )
        stop, low, high = self._open(category * STYLES + style, t)
        order, _, running, _ = self.cells
        place = np.searchsorted(running, low + uniform(seed, 18, number) * (high - low), side="right") - 1
        made = (high > low) & (time < self.span_ms)
        item = order[np.minimum(place, stop - 1)]
        return query[made], item[made], self.start_ms + time[made]
