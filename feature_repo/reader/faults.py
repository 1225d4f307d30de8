"""Why rows are not kept, and when that is so much that a log is refused."""

import time

import duckdb
from pydantic import BaseModel

from feature_repo.card import CardError, DatasetCard
from feature_repo.limits import ID_LENGTH, LATEST_MS
from feature_repo.reader import units
from feature_repo.reader.tables import Reading, Relation, one
from feature_repo.reader.text import literal

DAY_MS = 86_400_000
REASONS = (
    "", "left out by `where`", "malformed line", "event type not in `events`", "query id missing", "item id missing",
    f"id longer than {ID_LENGTH} characters", "event id missing", "time missing", "time unreadable",
    "time out of range", "value below `at_least`",
)  # fmt: skip
"""Why a row is not kept, by its number in ``staged``."""
NUMBER = {reason: number for number, reason in enumerate(REASONS)}
MALFORMED = NUMBER["malformed line"]
WRONG = (NUMBER["time unreadable"], NUMBER["time out of range"])
_SAMPLE = 200


class WrongTime(BaseModel):
    """A row whose time is none, or cannot be: the file, the row in it, and what stands there."""

    path: str
    row: int
    ms: int | None
    raw: str


class Faults(BaseModel):
    """What was not kept.

    by_reason: rows by the number of the reason, 0 for those that are kept or repeat one · wrong: the first wrong times
    · keyless: what to say if nothing could be kept because no object has a key that the card names · ragged: what to
    say if most lines of text could not be divided into the columns.
    """

    by_reason: dict[int, int]
    wrong: list[WrongTime]
    keyless: str | None
    ragged: str | None


def latest_ms() -> int:
    """The end of tomorrow or so: a later click has a wrong clock."""
    return min(LATEST_MS, int(time.time() * 1000) + DAY_MS)


def malformed_lines(reading: Reading) -> int:
    """Lines of text that could not be divided into the columns, or are no JSON; an open quote takes all lines that
    follow with it."""
    try:
        # Of two characters that end a line, the second stands before the next one.
        rejected = (
            "SELECT DISTINCT ON (scan_id, file_id, line) 1 + length(trim(csv_line, chr(10))) "
            "- length(replace(trim(csv_line, chr(10)), chr(10), '')) AS lines FROM reject_errors"
        )
        (lines,) = one(reading.sql, f"SELECT coalesce(sum(lines), 0)::BIGINT FROM ({rejected})")
    except duckdb.CatalogException:  # no text was read
        lines = 0
    return lines + reading.no_json


def refuse(card: DatasetCard, faults: Faults) -> None:
    """Stop where a log is of no use: most of its times are none in the unit that the card says, most lines have other
    columns than it says, or a key is in none of its objects.

    Raises:
        CardError: what is wrong, with the first row that shows it, and what would be right.
    """
    good = faults.by_reason.get(0, 0)
    if not good and faults.keyless:
        raise CardError(faults.keyless)
    if faults.ragged and 2 * faults.by_reason[MALFORMED] > sum(faults.by_reason.values()):
        raise CardError(faults.ragged)
    if sum(faults.by_reason.get(reason, 0) for reason in WRONG) > good:
        raise CardError(wrong_times(card, faults, always=True))


def wrong_times(card: DatasetCard, faults: Faults, always: bool = False) -> str | None:
    """What the first wrong time is, and in which unit it would be one.

    Args:
        always: Say it also where no other unit fits.
    """
    if not faults.wrong:
        return None
    first, unit = faults.wrong[0], card.clicks.time_unit
    would = "is none" if first.ms is None else f"would be in {units.moment(first.ms)}"
    with duckdb.connect() as sql:
        sql.execute(f"SET TimeZone = {literal(card.timezone)}")
        fits = units.fitting(sql, [time.raw for time in faults.wrong], card.timezone, latest_ms())
    if not fits and not always:
        return f"{first.path}: row {first.row:,} has {first.raw} for the time, which {would}; such rows are left out"
    return (
        f'{first.path}: the column {card.clicks.time} does not hold times of time_unit = "{unit}": row {first.row:,} '
        f"has {first.raw}, which {would}.{units.advice(fits)}"
    )


def ragged(path: object, bad: int, good: int, width: int) -> str:
    """What to say of text of which most lines do not fit."""
    return (
        f"{path}: {bad:,} of {bad + good:,} lines do not have the {width} columns of the first; say how they divide "
        "(separator, quoting, skip, or header = [...] for names that are not there), or read lines whole, by header = "
        '["line"] and a separator that none has, and let `sql` split them'
    )


def faults_of(reading: Reading, card: DatasetCard, parts: list[Relation]) -> Faults:
    sql = reading.sql
    by_reason = dict(sql.execute("SELECT reason, count(*) FROM staged GROUP BY reason").fetchall())
    by_reason[MALFORMED] = by_reason.get(MALFORMED, 0) + malformed_lines(reading)
    paths = {number: path for part in parts for number, path in zip(part.numbers, part.paths, strict=False)}
    rows = sql.execute(
        f"SELECT file, staged.n - first_row + 1, event_time, raw FROM staged JOIN files USING (file) "
        f"WHERE reason IN {WRONG} ORDER BY staged.n LIMIT {_SAMPLE}"
    ).fetchall()
    wrong = [WrongTime(path=str(paths[file]), row=row, ms=ms, raw=raw) for file, row, ms, raw in rows]
    keyless = None if by_reason.get(0) else next(filter(None, (_keyless(sql, card, part) for part in parts)), None)
    texts = [part for part in parts if part.header]
    bad, good = malformed_lines(reading) if texts else 0, sum(by_reason.values()) - by_reason[MALFORMED]
    uneven = ragged(texts[0].paths[0], bad, good, len(texts[0].header)) if bad > good else None
    return Faults(by_reason=by_reason, wrong=wrong, keyless=keyless, ragged=uneven)


def _keyless(sql: duckdb.DuckDBPyConnection, card: DatasetCard, part: Relation) -> str | None:
    """What to say of JSON in which a key that the card names is in no object."""
    if not part.named:
        return None
    names = [card.clicks.query, card.clicks.item, *([] if card.clicks.time_unit == "order" else [card.clicks.time])]
    counts = ", ".join(f"count({part.column(name).sql})" for name in names)
    objects, *with_key = one(sql, f"SELECT count(json), {counts} FROM {part.source}")
    missing = [name for name, count in zip(names, with_key, strict=True) if not count]
    if not objects or not missing:
        return None
    keys, first = one(sql, f"SELECT json_keys(any_value(json)), left(any_value(json)::VARCHAR, 60) FROM {part.source}")
    if not keys:
        return f"{part.paths[0]} holds no objects with keys, but values such as {first}"
    return f"{part.paths[0]} lacks the key {', '.join(missing)}; its first object has: {', '.join(keys)}"
