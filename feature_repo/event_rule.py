"""Which events are clicks: the one rule of a card, for log files, lake, night and stream alike."""

from pydantic import BaseModel, ConfigDict


class EventRule(BaseModel):
    """What an event counts as, by its type and its value. A bundle carries the rule that its state was counted by.

    events: what a type weighs as a click; others count as nothing, and without any every event is a click of weight 1 ·
    at_least: a click whose value is lower counts as nothing; one without a value counts by its type.
    """

    model_config = ConfigDict(frozen=True)

    events: dict[str, float] = {}
    at_least: float | None = None

    @property
    def clicks(self) -> list[str]:
        """The types that are clicks."""
        return [name for name, weight in self.events.items() if weight > 0]

    @property
    def against(self) -> list[str]:
        """The types that are a signal against their item."""
        return [name for name, weight in self.events.items() if weight < 0]

    def weight(self, event_type: str | None, value: float | None = None) -> float:
        """What an event weighs: above 0 it is a click, below a signal against the item, and at 0 neither.

        An event of the topic that names no type is a click.
        """
        weight = self.events.get(event_type, 0.0) if self.events and event_type is not None else 1.0
        low = self.at_least is not None and value is not None and value < self.at_least
        return 0.0 if weight > 0 and low else weight
