"""Some clicks of a training set that follow each other."""

from typing import NamedTuple

import numpy as np

from model.replay import ClickRows


class Block(NamedTuple):
    """B clicks and their negatives [B, S]; ``start`` is the number of the first in the window."""

    start: int
    clicks: ClickRows
    negatives: np.ndarray

    @property
    def stop(self) -> int:
        """The number of the first click behind it."""
        return self.start + len(self.clicks)

    @property
    def time(self) -> int:
        """ms of the first click."""
        return int(self.clicks.times[0])

    def part(self, rows: slice) -> "Block":
        """Those of its clicks that have these places in it."""
        return Block(self.start + rows.start, self.clicks[rows], self.negatives[rows])

    def parts(self, size: int) -> list[slice]:
        """Its places in about so many at a time: a moment that is larger than a batch is one block in several steps."""
        count = max(1, round(len(self.clicks) / size))
        bounds = np.cumsum([0, *(len(part) for part in np.array_split(np.arange(len(self.clicks)), count))])
        return [slice(int(first), int(last)) for first, last in zip(bounds[:-1], bounds[1:], strict=True)]
