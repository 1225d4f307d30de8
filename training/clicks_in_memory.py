"""The clicks of a training set in arrays: a small window's, or a test's."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from model.replay import ClickRows
from training.block import Block


@dataclass(frozen=True)
class ClicksInMemory:
    """N clicks in the order of the fold with their negatives [N, S]; see :class:`training.click_stream.ClickStream`."""

    clicks: ClickRows
    negatives: np.ndarray

    def __len__(self) -> int:
        return len(self.clicks)

    @property
    def width(self) -> int:
        return self.negatives.shape[1]

    def blocks(self, size: int, start: int = 0) -> Iterator[Block]:
        rest = self.clicks[start:]
        for rows in rest.blocks(size):
            first, last = start + rows.start, start + rows.stop
            yield Block(first, rest[rows], self.negatives[first:last])
