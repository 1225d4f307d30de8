"""Where an event stands in the log: what an answer that must count it waits for."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Place:
    """Of a record in its topic."""

    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.partition}:{self.offset}"


@dataclass(frozen=True)
class Token(Place):
    """An event's place in ``clicks``: an answer that counts all of its partition up to it counts the event.

    dismissed: of a dismissal, its place in the topic ``dismissed``, which each process reads for itself.
    """

    dismissed: Place | None = None

    def __str__(self) -> str:
        return super().__str__() if self.dismissed is None else f"{super().__str__()}:{self.dismissed}"

    @classmethod
    def parse(cls, text: str) -> "Token":
        """The token of ``str(token)``: two numbers, or four of a dismissal."""
        partition, offset, *more = map(int, text.split(":"))
        return cls(partition, offset, Place(*more) if more else None)
