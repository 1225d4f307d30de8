"""The names of the topics of the loop, under the prefix of one system."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Topics:
    """Systems that share a cluster have different prefixes, as in ``shop.clicks`` and ``news.clicks``."""

    prefix: str = ""

    @property
    def clicks(self) -> str:
        return f"{self.prefix}clicks"

    @property
    def impressions(self) -> str:
        return f"{self.prefix}impressions"

    @property
    def items(self) -> str:
        """What operators say of items: compacted, keyed by the item's id."""
        return f"{self.prefix}items"

    @property
    def forgotten(self) -> str:
        """Which queries were forgotten, and when: compacted, keyed by the query's id."""
        return f"{self.prefix}forgotten"

    @property
    def dismissed(self) -> str:
        """Which items queries have dismissed, keyed by the query's id."""
        return f"{self.prefix}dismissed"

    @property
    def dead_letters(self) -> str:
        return f"{self.prefix}clicks-dead"

    @property
    def item_signals(self) -> str:
        return f"{self.prefix}item-signals"

    @property
    def query_vectors(self) -> str:
        return f"{self.prefix}query-vectors"

    @property
    def item_vectors(self) -> str:
        return f"{self.prefix}item-vectors"

    @property
    def transactional(self) -> tuple[str, ...]:
        """Those that are written in transactions."""
        return (self.item_signals, self.query_vectors, self.item_vectors, self.dismissed, self.dead_letters)

    @property
    def all(self) -> tuple[str, ...]:
        return (self.clicks, self.impressions, self.items, self.forgotten, *self.transactional)
