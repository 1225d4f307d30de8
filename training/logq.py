"""How often a candidate is expected in a batch: the logQ correction of the sampled softmax."""

import numpy as np

Array = np.ndarray
RARE = 1e-12  # more than never, so that its log is finite


class ItemFrequency:
    """The window's N clicks by item.

    Args:
        items: [N] rows of the clicked items, in the order of the fold.
    """

    def __init__(self, items: Array):
        self.size = len(items)
        self._places = np.sort(items.astype(np.int64) * self.size + np.arange(self.size))  # by item, then time

    def clicked(self, items: Array, first: int, last: int) -> Array:
        """[U] clicks of some items among those from ``first`` to before ``last``."""
        start = items.astype(np.int64) * self.size
        first, last = max(first, 0), min(last, self.size)
        return np.searchsorted(self._places, start + last) - np.searchsorted(self._places, start + first)

    def log_expected(self, items: Array, first: int, last: int, uniform: float, own: int = 0) -> Array:
        """[U] log of how often each item is expected among a batch's candidates, per positive.

        A positive is expected by its share of the clicks from ``first`` to before ``last``. ``uniform`` is how often
        any item is expected as a negative: S over the number of items. ``own`` clicks are left out: a click that
        counted for itself would make a rare item seem frequent wherever it is the positive, and pull it up.
        """
        around = max(min(last, self.size) - max(first, 0) - own, 1)
        return np.log((self.clicked(items, first, last) - own) / around + uniform + RARE)
