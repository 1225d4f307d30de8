"""How often items are clicked in any stretch of a window: what the logQ correction asks for each batch."""

import numpy as np

Array = np.ndarray


class Frequency:
    """The window's N clicks by item.

    Args:
        items: [N] rows of the clicked items, in order of time (−1: unknown).
    """

    def __init__(self, items: Array):
        self.size = len(items)
        self.places = np.sort(items.astype(np.int64) * self.size + np.arange(self.size))  # by item, then time

    def expected(self, candidates: Array, first: int, last: int, items: int) -> Array:
        """How often each candidate is expected in a batch, per positive: among the positives, by its share of the other
        clicks from ``first`` to before ``last``, and among the uniform negatives.

        A click does not count for itself. Counted, rare items would seem frequent wherever they are the positive, and
        be pulled up.

        Args:
            candidates: [B, 1+S] item rows, the positives of B of those clicks first (−1: no candidate).
            items: How many there are to draw negatives from.
        """
        first, last = max(first, 0), min(last, self.size)
        start = candidates * self.size
        clicked = np.searchsorted(self.places, start + last) - np.searchsorted(self.places, start + first)
        clicked[:, 0] -= 1
        return clicked / max(last - first - 1, 1) + (candidates.shape[1] - 1) / items
