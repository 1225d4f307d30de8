"""How often a candidate is expected in a batch: the logQ correction of the sampled softmax."""

import numpy as np

Array = np.ndarray
RARE = 1e-12  # more than never, so that its log is finite


def log_expected(clicked: Array, around: int, uniform: float, own: int = 0) -> Array:
    """[U] log of how often each item is expected among a batch's candidates, per positive.

    A positive is expected by its share ``clicked`` [U] of the ``around`` clicks. ``uniform`` is how often any item is
    expected as a negative: S over the number of items. ``own`` clicks are left out: a click that counted for itself
    would make a rare item seem frequent wherever it is the positive, and pull it up.
    """
    return np.log((clicked - own) / max(around - own, 1) + uniform + RARE)


class ItemFrequency:
    """The clicks of each item in a stretch of the window, which moves on as its clicks are read.

    Args:
        items: How many there are. size: N, clicks of the window. start: The number of the first click to be read.
    """

    def __init__(self, items: int, size: int, start: int = 0):
        self.size, self.start, self.stop = size, start, start
        self.counts = np.zeros(items, np.int64)
        self.held = np.empty(0, np.int32)  # items of the clicks from ``start`` on that have been read

    @property
    def read_to(self) -> int:
        """The number of the first click that has not been read."""
        return self.start + len(self.held)

    def read(self, items: Array) -> None:
        """The items of the clicks that follow."""
        self.held = np.concatenate([self.held, items])

    def move(self, start: int, stop: int) -> None:
        """Count the clicks from ``start`` to before ``stop``, none of which may lie before those counted so far."""
        start, stop = max(start, self.start), min(stop, self.size)
        np.add.at(self.counts, self.held[self.stop - self.start : stop - self.start], 1)
        np.subtract.at(self.counts, self.held[: start - self.start], 1)
        self.held, self.start, self.stop = self.held[start - self.start :], start, max(stop, self.stop)

    def log_expected(self, items: Array, uniform: float, own: int = 0) -> Array:
        """:func:`log_expected` of some items [U] among the clicks that are counted."""
        return log_expected(self.counts[items], self.stop - self.start, uniform, own)
