"""How the night tells what it is doing, without knowing who listens."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class Progress(Protocol):
    """Something that shows stages."""

    def stage(self, name: str, total: int | None = None) -> AbstractContextManager[Callable[[int], None]]:
        """A stage begins; it ends with the context. The callable takes how much more is done, out of ``total``."""
        ...

    def tell(self, text: str) -> None:
        """Something that a person should know."""
        ...


class Clock:
    """Shows stages and keeps how long each took, in seconds."""

    def __init__(self, progress: Progress):
        self.progress = progress
        self.seconds: dict[str, float] = {}
        self.last = ""
        """The stage that began last."""

    @contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
        started, self.last = time.perf_counter(), name
        with self.progress.stage(name, total) as advance:
            yield advance
        self.seconds[name] = round(time.perf_counter() - started, 2)


def steps(advance: Callable[[int], None]) -> Callable[[int], None]:
    """Turn "so many more" into "so many done"."""
    done = 0

    def told(total: int) -> None:
        nonlocal done
        advance(total - done)
        done = total

    return told
