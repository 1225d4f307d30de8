"""What each query clicks in a window, and when: what the losses may not hold against it."""

import numpy as np

Array = np.ndarray
FEW = 0.05  # share of clicks that may repeat an earlier one of the same query in a log where that is rare


class Clicked:
    """The window's N clicks by query.

    Args:
        queries, items: [N] their rows, in order of time; a query of row −1 is unknown and has no clicks.
    """

    def __init__(self, queries: Array, items: Array):
        self.order = np.argsort(queries, kind="stable")
        self.items = items[self.order]
        self.starts = np.searchsorted(queries[self.order], np.arange(queries.max(initial=0) + 2))
        pairs = queries * (items.max(initial=0) + 1) + items
        self.rarely_twice = 1 - len(np.unique(pairs)) / max(len(pairs), 1) < FEW
        """Whether answers leave out what a query has clicked: it hardly ever clicks it again."""

    def seen(self, numbers: Array, queries: Array, items: Array) -> Array:
        """What each query of a batch of B clicks has seen of the batch's candidates: [B, B, 1+S].

        That is the positives of its other clicks in the batch and, where few click twice, all that it has clicked
        before.

        Args:
            numbers: [B] the clicks' numbers in the window. queries: [B]. items: [B, 1+S] the positives first.
        """
        seen = self.before(numbers, queries, items) if self.rarely_twice else np.zeros((len(items), *items.shape), bool)
        seen[:, :, 0] |= queries[:, None] == queries[None, :]
        return seen

    def before(self, numbers: Array, queries: Array, items: Array) -> Array:
        """Whether each of B queries has clicked each of the items [...] before its click of that number: [B, ...]."""
        keys, row = np.unique(queries, return_inverse=True)
        known, column = np.unique(items, return_inverse=True)
        first = self.starts[np.maximum(keys, 0)]
        counts = np.where(keys >= 0, self.starts[np.maximum(keys, 0) + 1] - first, 0)
        owner = np.repeat(np.arange(len(keys)), counts)
        at = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts - first, counts)
        place = np.minimum(np.searchsorted(known, self.items[at]), len(known) - 1)
        hit = np.flatnonzero(known[place] == self.items[at])[::-1]
        when = np.full((len(keys), len(known)), np.iinfo(np.int32).max, np.int32)
        when[owner[hit], place[hit]] = self.order[at[hit]]  # backwards, so that the earliest is written last
        found = when[row][:, column.ravel()] < numbers[:, None]
        return found.reshape(len(queries), *items.shape)
