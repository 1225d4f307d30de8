"""Which candidates are no negatives of a query, for rivals that learn from a window's clicks in any order."""

import numpy as np

Array = np.ndarray


class ClickedBefore:
    """The window's N clicks by query.

    Args:
        queries, items: [N] rows, in the order of the fold.
        excludes_seen: Whether answers leave out what a query has clicked; then it is no negative either.
    """

    def __init__(self, queries: Array, items: Array, excludes_seen: bool):
        self.order = np.argsort(queries, kind="stable")
        self.items = items[self.order]
        self.starts = np.searchsorted(queries[self.order], np.arange(int(queries.max(initial=0)) + 2))
        self.excludes_seen = excludes_seen

    def of(self, numbers: Array, queries: Array, positives: Array, candidates: Array) -> tuple[Array, Array]:
        """Rows, ascending, and columns of the candidates that a click's query has clicked before, or in this batch.

        Args:
            numbers: [B] the clicks' numbers in the window. queries, positives: [B]. candidates: [U] sorted item rows.
        """
        keys, row = np.unique(queries, return_inverse=True)
        owner, items, when = row, positives, np.full(len(row), -1)
        if self.excludes_seen:
            counts = self.starts[keys + 1] - self.starts[keys]
            of = np.repeat(np.arange(len(keys)), counts)
            at = np.arange(len(of)) - np.repeat(np.cumsum(counts) - counts - self.starts[keys], counts)
            owner, items = np.concatenate([owner, of]), np.concatenate([items, self.items[at]])
            when = np.concatenate([when, self.order[at]])
        place = np.searchsorted(candidates, items)
        hit = np.flatnonzero(np.append(candidates, -1)[place] == items)
        # Of a query's clicks on one candidate the earliest tells, which stands first.
        cell, first = np.unique(owner[hit] * len(candidates) + place[hit], return_index=True)
        when, counts = when[hit][first], np.bincount(cell // max(len(candidates), 1), minlength=len(keys))
        rows = np.repeat(np.arange(len(row)), counts[row])
        at = np.arange(len(rows)) + np.repeat((np.cumsum(counts) - counts)[row], counts[row])
        at -= np.repeat(np.cumsum(counts[row]) - counts[row], counts[row])
        known = when[at] < numbers[rows]
        return rows[known], cell[at[known]] % max(len(candidates), 1)
