"""Where a click stands in the log: what an answer that must count it waits for."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Token:
    """A click's place in the log: an answer that counts all of its partition up to it counts the click."""

    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.partition}:{self.offset}"
