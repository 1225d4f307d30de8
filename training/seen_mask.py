"""Which candidates are no negatives of a query, since it has clicked them."""

import numpy as np

Array = np.ndarray


class SeenMask:
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

    def of(self, numbers: Array, queries: Array, positives: Array, candidates: Array) -> Array:
        """[B, U]: whether the query of each of B clicks has clicked each candidate before, or in this batch.

        Args:
            numbers: [B] the clicks' numbers in the window. queries, positives: [B]. candidates: [U] sorted item rows.
        """
        keys, row = np.unique(queries, return_inverse=True)
        clicked = np.zeros((len(keys), len(candidates)), bool)
        clicked[row, np.searchsorted(candidates, positives)] = True
        mask = clicked[row]
        if self.excludes_seen:
            counts = self.starts[keys + 1] - self.starts[keys]
            owner = np.repeat(np.arange(len(keys)), counts)
            at = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts - self.starts[keys], counts)
            place = np.minimum(np.searchsorted(candidates, self.items[at]), len(candidates) - 1)
            hit = np.flatnonzero(candidates[place] == self.items[at])[::-1]
            when = np.full(clicked.shape, np.iinfo(np.int64).max)
            when[owner[hit], place[hit]] = self.order[at[hit]]  # backwards: the earliest is written last
            mask |= when[row] < numbers[:, None]
        return mask
