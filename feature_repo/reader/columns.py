"""Values as the system has them, in SQL: ids and words as text, times as ms, numbers; null where there is none."""

import re
from collections.abc import Iterable

from feature_repo.card import CardError
from feature_repo.reader.tables import Column
from feature_repo.reader.text import literal, literals

PER_UNIT = {"s": 1e3, "ms": 1.0, "us": 1e-3, "ns": 1e-6, "d": 86_400_000.0, "position": 1e3}
WORDED = (
    "%Y%m%d", "%Y-%m-%d %H:%M:%S %z", "%Y-%m-%dT%H:%M%z", "%Y-%m-%d %H:%M%z", "%Y%m%dT%H%M%S%z",
    "%a %b %d %Y %H:%M:%S GMT%z",
    "%a %b %d %H:%M:%S %z %Y", "%a, %d %b %Y %H:%M:%S %z", "%d/%b/%Y:%H:%M:%S %z",
)  # fmt: skip
"""Ways to write a moment, besides ISO 8601's, that can mean one only: where month and day could be taken for each other
a card has to say which is which."""
ZONES = {
    "UTC": 0, "GMT": 0, "WET": 0, "WEST": 1, "CET": 1, "CEST": 2, "EET": 2, "EEST": 3, "MSK": 3, "EST": -5, "EDT": -4,
    "MDT": -6, "PDT": -7, "KST": 9, "JST": 9, "AEST": 10, "AEDT": 11, "NZST": 12, "NZDT": 13,
}  # fmt: skip
"""Words for zones that mean one offset, in hours; BST, CST, IST, MST, PST and others are the names of several."""
_LOOSE = r"(:\d\d(\.\d+)?) ?(Z|[+-]\d\d(:?\d\d)?)(\[[A-Za-z_/]+\])?$"
"""ISO 8601 as Snowflake (a blank before the offset) and Java (the zone's name behind it) write its end."""
_EXCEL_EPOCH = 25_569  # the day number of 1970-01-01, where 1899-12-30 is 0
_EXCEL_LAST = 2_958_466  # the year 9999
_INTEGERS = {f"{sign}{size}INT" for sign in ("", "U") for size in ("TINY", "SMALL", "BIG", "HUGE")} | {
    "INTEGER",
    "UINTEGER",
}
_NEXT = "[89AB][0-9A-F]"
_UTF8 = (
    f"([2-6][0-9A-F]|7[0-9A-E]|(C[2-9A-F]|D[0-9A-F]){_NEXT}|E0[AB][0-9A-F]{_NEXT}|E[1-9A-CEF]{_NEXT}{_NEXT}|"
    f"ED[89][0-9A-F]{_NEXT}|F0[9AB][0-9A-F]{_NEXT}{_NEXT}|F[123]{_NEXT}{_NEXT}{_NEXT}|F48[0-9A-F]{_NEXT}{_NEXT})*"
)
"""Hexadecimal digits of text without control characters."""
_NESTED = ("STRUCT", "MAP", "UNION")


def is_nested(column: Column) -> bool:
    """Whether a column holds lists or objects; of JSON only the values tell."""
    return column.type.endswith("]") or column.type.startswith(_NESTED)


def text(column: Column, nulls: list[str]) -> str:
    """Words and ids: byte for byte as the file has them, but floats that are whole numbers as those (``25``).

    Args:
        nulls: Words that stand for nothing.
    """
    value, kind = column.sql, column.type
    if kind in _INTEGERS:
        return f"{value}::VARCHAR"
    if kind in ("FLOAT", "DOUBLE"):
        return _whole(value)
    if kind.startswith("DECIMAL"):
        return (
            f"CASE WHEN {value} = trunc({value}) THEN trunc({value})::DECIMAL(38, 0)::VARCHAR ELSE {value}::VARCHAR END"
        )
    if kind == "JSON":
        # A whole number of more than 64 bits is a DOUBLE, too.
        number = (
            f"CASE WHEN regexp_full_match({value} ->> '$', '-?[0-9]+') THEN {value} ->> '$' "
            f"ELSE {_whole(f'TRY_CAST({value} AS DOUBLE)')} END"
        )
        key = literal(f"the key {column.key} holds " if column.key else "")
        todo = literal("; `sql` takes them apart, as dat data init writes it")
        nested = f"error({key} || 'lists or objects where one value should be, such as ' || {value}::VARCHAR || {todo})"
        cases = f"WHEN 'DOUBLE' THEN {number} WHEN 'ARRAY' THEN {nested} WHEN 'OBJECT' THEN {nested}"
        value = f"CASE json_type({value}) {cases} ELSE {value} ->> '$' END"
    elif kind == "BLOB":
        value = _text_or_bytes(value)
    elif kind != "VARCHAR":
        return f"{value}::VARCHAR"
    return without(value, nulls)


def _text_or_bytes(value: str) -> str:
    """Bytes as the text that they are, or else as a UUID or as hexadecimal digits.

    A UUID is hardly ever UTF-8 without control characters by chance. DuckDB's own ``decode`` stops at bytes that are no
    text, is slow where it may fail, and writes over its argument where it replaces them.
    """
    digits = f"hex({value})"
    bytes_ = f"CASE octet_length({value}) WHEN 16 THEN CAST({digits} AS UUID)::VARCHAR ELSE lower({digits}) END"
    return f"CASE WHEN regexp_full_match({digits}, '{_UTF8}') THEN decode({value}) ELSE {bytes_} END"


def without(value: str, nulls: list[str]) -> str:
    """Text that is null where it is one of some words."""
    # For a long IN, DuckDB plans a join, in a time that grows with the cube of the columns.
    return f"CASE WHEN NOT list_contains({literals(nulls)}, {value}) THEN {value} END" if nulls else value


def _whole(number: str) -> str:
    return (
        f"CASE WHEN NOT isfinite({number}) THEN NULL WHEN {number} = trunc({number}) AND abs({number}) < 1e18 "
        f"THEN {number}::BIGINT::VARCHAR ELSE {number}::VARCHAR END"
    )


def number(column: Column, nulls: list[str]) -> str:
    """A finite number, or null where it is none."""
    value = text(column, nulls) if column.type in ("VARCHAR", "JSON", "BLOB") else column.sql
    if column.decimal == "," and column.type == "VARCHAR":
        value = f"replace(replace({value}, '.', ''), ',', '.')"
    cast = f"TRY_CAST({value} AS DOUBLE)"
    return f"CASE WHEN isfinite({cast}) THEN {cast} END"


def missing(column: Column, nulls: list[str]) -> str:
    """Whether there is no value."""
    if column.type in ("VARCHAR", "JSON", "BLOB", "FLOAT", "DOUBLE"):
        return f"({text(column, nulls)}) IS NULL"
    return f"{column.sql} IS NULL"


def words(column: Column, separator: str, nulls: list[str]) -> str:
    """Several words: a list as it is, or text that is split; without what is empty."""
    if column.type == "JSON":
        items = (
            f"CASE json_type({column.sql}) WHEN 'ARRAY' THEN {column.sql} ->> '$[*]' "
            f"ELSE string_split({column.sql} ->> '$', {literal(separator)}) END"
        )
    elif column.type.endswith("]"):
        items = f"list_transform({column.sql}, word -> {text(Column('word', column.type.rsplit('[', 1)[0]), [])})"
    else:
        items = f"string_split({text(column, nulls)}, {literal(separator)})"
    return f"coalesce(list_filter({items}, word -> NOT list_contains({literals(nulls or [''])}, word)), [])"


def with_commas(values: Iterable[str]) -> bool:
    """Whether all are numbers if a comma stands before their fractions."""
    return all(re.fullmatch(r"-?(\d+|\d{1,3}(\.\d{3})+)(,\d+)?", value) for value in values)


def time_ms(column: Column, unit: str, zone: str, nulls: list[str]) -> str:
    """Milliseconds since the epoch, or null where it is no time.

    Args:
        zone: Of dates and moments that say none. The connection's ``TimeZone`` has to be the same.

    Raises:
        CardError: the unit is of numbers, and the column is of dates.
    """
    kind, value = column.type, column.sql
    if kind == "DATE" or kind.startswith("TIMESTAMP"):
        if unit != "date":
            raise CardError(f'is of type {kind}: say time_unit = "date"')
        moment = value if kind.endswith("TIME ZONE") else f"{value}::TIMESTAMP AT TIME ZONE {literal(zone)}"
        return f"epoch_ms({moment})"  # of infinity: null
    if unit in PER_UNIT:
        return f"TRY_CAST(round({number(column, nulls)} * {PER_UNIT[unit]!r}) AS BIGINT)"
    if unit == "excel":  # what a clock showed, to the millisecond
        days = number(column, nulls)
        ms = f"round(({days} - {_EXCEL_EPOCH}) * {PER_UNIT['d']!r})::BIGINT"
        shown = f"CASE WHEN {days} BETWEEN 0 AND {_EXCEL_LAST} THEN make_timestamp({ms} * 1000) END"
        return f"epoch_ms(({shown}) AT TIME ZONE {literal(zone)})"
    said = text(column, nulls)
    if unit == "date":
        return f"epoch_ms({_date(said)})"
    moment = f"try_strptime({said}, {literal(unit)})"
    if "%z" not in unit and "%Z" not in unit:
        moment = f"({moment} AT TIME ZONE {literal(zone)})"
    return f"epoch_ms({moment})"


def _date(said: str) -> str:
    """The moment of a text: ISO 8601, or one of :data:`WORDED`; at its end there may be a word of :data:`ZONES`.

    DuckDB takes words for zones of which it knows one: BST would be Bangladesh's time, and CET in July CEST.
    """
    word = f"regexp_extract({said}, '[^A-Za-z/]([A-Z]{{2,5}})$', 1)"
    offsets = ", ".join(f"'{name}': '{hours:+03d}:00'" for name, hours in ZONES.items())
    moment = f"rtrim(left({said}, length({said}) - length({word})))"
    offset = f"MAP {{{offsets}}}[{word}]"
    forms = [*WORDED, "%Y-%m-%d %H:%M %z"]
    has_offset = f"regexp_matches({moment}, ':\\d\\d(\\.\\d+)? ?[+-]\\d\\d:?\\d\\d$')"  # as Go writes it
    with_word = (
        f"coalesce(TRY_CAST({moment} || {offset} AS TIMESTAMPTZ), "
        f"try_strptime({moment} || ' ' || {offset}, {forms!r}), "
        f"CASE WHEN {has_offset} THEN TRY_CAST({_iso(moment)} AS TIMESTAMPTZ) END)"
    )
    numbers = f"regexp_replace({said}, ' ?Z$| \\(.*\\)$', CASE WHEN right({said}, 1) = 'Z' THEN '+00:00' ELSE '' END)"
    plain = (
        f"coalesce(TRY_CAST({said} AS TIMESTAMPTZ), TRY_CAST({_iso(said)} AS TIMESTAMPTZ), "
        f"try_strptime({numbers}, {list(WORDED)!r}))"
    )
    # Most have none, and their last character tells so at once.
    return f"CASE WHEN right({said}, 1) BETWEEN 'A' AND 'Y' AND {word} != '' THEN {with_word} ELSE {plain} END"


def _iso(said: str) -> str:
    """ISO 8601 as DuckDB knows it."""
    return f"regexp_replace(replace({said}, ',', '.'), '{_LOOSE}', '\\1\\3')"
