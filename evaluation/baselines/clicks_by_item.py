"""How often items were clicked in any stretch of a window, for rivals that learn from its clicks in any order."""

import numpy as np

Array = np.ndarray


class ClicksByItem:
    """The window's N clicks by item.

    Args:
        items: [N] rows of the clicked items, in the order of the fold.
    """

    def __init__(self, items: Array):
        self.size = len(items)
        self._places = np.sort(items.astype(np.int64) * self.size + np.arange(self.size))  # by item, then time

    def around(self, first: int, last: int) -> int:
        """Clicks from ``first`` to before ``last``."""
        return min(last, self.size) - max(first, 0)

    def of(self, items: Array, first: int, last: int) -> Array:
        """[U] those of some items."""
        start = items.astype(np.int64) * self.size
        first, last = max(first, 0), min(last, self.size)
        return np.searchsorted(self._places, start + last) - np.searchsorted(self._places, start + first)
