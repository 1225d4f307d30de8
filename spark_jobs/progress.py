"""How the night tells what it is doing, without knowing who listens."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol


class Progress(Protocol):
    """Something that shows stages."""

    def stage(self, name: str, total: int | None = None) -> AbstractContextManager[Callable[[int], None]]:
        """A stage begins; it ends with the context. The callable takes how much more is done, out of ``total``."""
        ...
