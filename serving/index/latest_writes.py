"""The latest writes to a table, for readers that take them over when they are asked: a write costs them nothing."""

import itertools
from collections import deque
from typing import Generic, TypeVar

Write = TypeVar("Write")
_ROWS, _WRITES = 65_536, 4_096  # that are remembered: to begin anew is cheaper than to look at more


class LatestWrites(Generic[Write]):
    """Remembers the last writes, whatever says what they were.

    rows: how many rows were ever written, by which a reader says up to where it has taken them over.
    """

    def __init__(self) -> None:
        self.rows = 0
        self._writes: deque[tuple[int, Write]] = deque()  # each with ``rows`` before it

    def add(self, rows: int, write: Write) -> None:
        """Remember a write of so many rows."""
        self._writes.append((self.rows, write))
        self.rows += rows
        while self._writes and (self.rows - self._writes[0][0] > _ROWS or len(self._writes) > _WRITES):
            self._writes.popleft()

    def since(self, rows: int) -> list[Write] | None:
        """The writes since :attr:`rows` was this number, oldest first; None if they are no longer known."""
        if rows < (self._writes[0][0] if self._writes else self.rows):
            return None
        late = itertools.takewhile(lambda one: one[0] >= rows, reversed(self._writes))
        return [write for _, write in late][::-1]
