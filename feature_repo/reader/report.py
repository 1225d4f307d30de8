"""What a reading found: every row that was read is either kept or counted here by the reason why it was not."""

from pydantic import BaseModel, ConfigDict, Field

BY_CHOICE = (
    "left out by `where`", "event type not in `events`", "value below `at_least`", "query id missing",
)  # fmt: skip
"""Reasons that are no damage: the card asks for it, or an event of nobody that we know."""


class Report(BaseModel):
    """Counts of a reading. Nothing in it is silent: ``tell`` has a line for each."""

    model_config = ConfigDict(frozen=True)

    rows_read: int
    rows: int
    """Rows that were kept."""
    dropped: dict[str, int]
    """Rows that were left out, by reason."""
    duplicates: int
    """Rows that say again what another row says; they were merged with it."""
    problems: list[str]
    """What a person should look at: decisions that the card did not take, and what looks wrong."""

    def tell(self) -> str:
        """What happened to the rows, in a sentence."""
        lost = [f"{count:,} {reason}" for reason, count in self.dropped.items()]
        lost += [f"{self.duplicates:,} duplicates merged"] if self.duplicates else []
        return f"{self.rows:,} of {self.rows_read:,} rows" + (f" ({', '.join(lost)})" if lost else "")


class CatalogueReport(Report):
    """A side's catalogue."""

    conflicts: int = 0
    """Duplicates that say something else than the row that counts, which is the last."""
    unknown: dict[str, int] = Field(default_factory=dict)
    """Rows that have no value, by feature."""
    unreadable: dict[str, int] = Field(default_factory=dict)
    """Values that are not of the feature's kind and were left out, by feature."""
    added: int | None = None
    changed: int | None = None
    removed: int | None = None
    """Ids that differ from the catalogue that was landed before; None: there was none."""


class NewestDay(BaseModel):
    """The day of the newest click."""

    model_config = ConfigDict(frozen=True)

    date: str
    clicks: int
    last: str
    """The moment of its last click."""
    partial: bool
    """Whether it ends long before the days before it do."""


class ReadReport(Report):
    """A log of clicks."""

    files: int
    queries: int
    items: int
    first: str | None
    """ISO 8601, in the card's time zone; None where the log has no times, or no rows."""
    last: str | None
    days: dict[str, int]
    """Rows kept by date, in the card's time zone."""
    newest_day: NewestDay | None
    types: dict[str, int]
    """Rows kept by type of event; empty without types."""
    clicks: int
    """Rows kept that are clicks: of types that weigh more than 0."""
    corrected: dict[str, int]
    """Values that could not be read and are unknown, by column; their rows are kept."""
    unknown_items: int | None = None
    """Rows kept whose item the catalogue lacks; None without one."""
    examples: list[dict]
    """The first rows, as read."""

    @property
    def invalid(self) -> int:
        """Rows that were left out because they are damaged."""
        return sum(count for reason, count in self.dropped.items() if reason not in BY_CHOICE)
