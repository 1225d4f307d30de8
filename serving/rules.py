"""What a shop wants of a list besides the best items first: some pinned, some boosted, not too many of one kind."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from serving.corpus import Corpus
from serving.filters import Where
from serving.index.search import Hits, best_rows
from serving.index.subset import Subset

Array = np.ndarray
DEEPEST = 4_000  # items are looked at, where a list falls short
_MORE = 4  # times as many, each time that it does
Find = Callable[[int, Subset | None], Hits]


@dataclass(frozen=True, slots=True)
class Boost:
    """Items that meet ``where`` are ranked as if their score were higher by ``by``."""

    where: Where
    by: float


@dataclass(frozen=True, slots=True)
class Rules:
    """pinned: these come first, in this order · boosts: of several that an item meets the largest counts ·
    max_per_category: at most so many of one category; an item of several counts in each."""

    pinned: tuple[str, ...] = ()
    boosts: tuple[Boost, ...] = ()
    max_per_category: int | None = None


def arranged(
    rules: Rules, n: int, corpus: Corpus, find: Find, within: Subset | None, never: Array | None = None
) -> Hits:
    """The best n rows under some rules, and their scores, boosts included.

    Args:
        find: The best so many rows of those that may be shown, or of a part of them.
        within: The rows that may be shown; None: all. Pinned ones need not be among them.
        never: Rows that may not be shown, not even pinned ones.
    """
    pinned = _may_be_shown(corpus, rules.pinned)
    pinned = (pinned if never is None else pinned[~np.isin(pinned, never)])[:n]
    parts = [(_both(corpus.subset(boost.where), within), boost.by) for boost in rules.boosts]
    room, asked = n - len(pinned), n + len(pinned)
    while True:
        # An item that its boost lifts into the first n is among the first n of those that have this boost.
        found = [find(asked, None), *(find(asked, part) for part, _ in parts)]
        rows, first = np.unique(np.concatenate([hits[0] for hits in found]), return_index=True)
        scores = np.concatenate([hits[1] for hits in found])[first].astype(np.float64)
        if parts:
            scores += np.max([np.where(part.holds(rows), by, 0.0) for part, by in parts], axis=0)
        rows, scores = best_rows(rows, scores, len(rows))
        kept = ~np.isin(rows, pinned)
        rows, scores = rows[kept], scores[kept]
        if rules.max_per_category is not None:
            chosen = _few_of_each(corpus, rows, pinned, rules.max_per_category, room)
            rows, scores = rows[chosen], scores[chosen]
        if len(rows) >= room or len(found[0][0]) < asked or asked >= DEEPEST:
            top = scores[0] if len(scores) else 0.0
            first_scores = np.full(len(pinned), top)
            return np.concatenate([pinned, rows[:room]]), np.concatenate([first_scores, scores[:room]])
        asked = min(_MORE * asked, DEEPEST)


def _may_be_shown(corpus: Corpus, ids: Sequence[str]) -> Array:
    """Rows of the ids that nothing speaks against, in their order, none of them twice."""
    rows = list(dict.fromkeys(corpus.rows(ids).tolist()))
    return np.array([row for row in rows if not corpus.held(row)], np.int64)


def _both(one: Subset, other: Subset | None) -> Subset:
    if other is None:
        return one
    rows = one.rows()
    return Subset(rows[other.holds(rows)])


def _few_of_each(corpus: Corpus, rows: Array, pinned: Array, most: int, room: int) -> list[int]:
    """Places of the first ``room`` rows that leave no category with more than ``most``."""
    count = Counter(name for row in pinned.tolist() for name in corpus.category_of(row))
    places: list[int] = []
    for place, row in enumerate(rows.tolist()):
        if len(places) == room:
            break
        names = corpus.category_of(row)
        if all(count[name] < most for name in names):
            count.update(names)
            places.append(place)
    return places
