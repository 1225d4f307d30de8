"""Catalogues of one form from whatever a card describes: an id, and a column a feature, typed by its kind."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa

from feature_repo.card import CardError, DatasetCard, Field_, Side, Table
from feature_repo.limits import ID_LENGTH, LATEST_MS
from feature_repo.reader import columns
from feature_repo.reader.clicks import connect
from feature_repo.reader.faults import malformed_lines
from feature_repo.reader.report import CatalogueReport
from feature_repo.reader.tables import ROW, Column, Reading, Relation, one, quoted, source, write_rows
from feature_repo.reader.units import advice, fitting

TYPES = {
    "category": pa.string(), "categories": pa.list_(pa.string()), "number": pa.float32(), "time": pa.int64(),
    "text": pa.string(),
}  # fmt: skip


_SAMPLE = 200


@dataclass(frozen=True)
class Catalogue:
    """A side's catalogue, an id once, in the order of the files, and what the reading found."""

    rows: pa.Table
    report: CatalogueReport


def schema(side: Side) -> pa.Schema:
    """``id``, and a column a feature."""
    return pa.schema([("id", pa.string()), *((name, TYPES[field.kind]) for name, field in side.features.items())])


def read_catalogue(card: DatasetCard, folder: Path, side_name: str) -> pa.Table:
    """A side's catalogue: ``id`` and one column a feature; no rows if the card names no table.

    Raises:
        CardError: see :func:`load_catalogue`.
    """
    return load_catalogue(card, folder, side_name).rows


def load_catalogue(card: DatasetCard, folder: Path, side_name: str) -> Catalogue:
    """A side's catalogue with its report. Of several rows of one id the last one counts.

    Raises:
        CardError: a file or a column is missing, or most of a column's values are not of the feature's kind.
    """
    side: Side = getattr(card, side_name)
    if side.table is None:
        return Catalogue(
            schema(side).empty_table(), CatalogueReport(rows_read=0, rows=0, dropped={}, duplicates=0, problems=[])
        )
    with tempfile.TemporaryDirectory(prefix="dat-read-") as scratch, connect(card, Path(scratch)) as sql:
        (Path(scratch) / "copies").mkdir()
        reading = Reading(sql, Path(scratch) / "copies")
        return _load(reading, card, side, side.table, folder)


def _load(reading: Reading, card: DatasetCard, side: Side, table: Table, folder: Path) -> Catalogue:
    sql = reading.sql
    parts = source(reading, table, folder)
    for number, part in enumerate(parts):
        start = "CREATE TABLE rows AS" if number == 0 else "INSERT INTO rows"
        before = one(sql, "SELECT count(*) FROM rows")[0] if number else 0
        write_rows(sql, part, f"{start} {_canonical(part, card, side, table, before)}")
    malformed = malformed_lines(reading)
    read, left_out, nameless, long = one(
        sql,
        'SELECT count(*), count(*) FILTER ("left out"), count(*) FILTER (NOT "left out" AND id IS NULL), '
        f'count(*) FILTER (NOT "left out" AND length(id) > {ID_LENGTH}) FROM rows',
    )
    good = f'NOT "left out" AND length(id) BETWEEN 1 AND {ID_LENGTH}'
    names = ["id", *side.features]
    selected = ", ".join(quoted(name) for name in names)
    sql.execute(
        f'CREATE TABLE newest AS SELECT max("the row") AS n, count(*) AS times, '
        f"count(DISTINCT hash({selected})) AS versions FROM rows WHERE {good} GROUP BY id"
    )
    ids, again, conflicts = one(
        sql,
        "SELECT count(*), coalesce(sum(times) - count(*), 0)::BIGINT, "
        "coalesce(sum(versions) - count(*), 0)::BIGINT FROM newest",
    )
    chosen = 'FROM rows JOIN newest ON "the row" = n ORDER BY n'
    unknown: dict[str, int] = {}
    unreadable: dict[str, int] = {}
    for name, field in side.features.items():
        empty = f"len({quoted(name)}) = 0" if field.kind == "categories" else f"{quoted(name)} IS NULL"
        lacking, bad, example = one(
            sql,
            f"SELECT count(*) FILTER ({empty}), count({quoted('raw ' + name)}), min({quoted('raw ' + name)}) "
            'FROM rows JOIN newest ON "the row" = n',
        )
        unknown |= {name: lacking} if lacking else {}
        unreadable |= {name: bad} if bad else {}
        if bad > (ids - lacking):
            unit = f' of time_unit = "{field.time_unit}"' if field.kind == "time" else ""
            raise CardError(
                f"{parts[0].paths[0]}: the column {field.column} should hold a {field.kind}{unit}, but {bad:,} of "
                f"{ids - lacking + bad:,} values are none, such as {example}{_remedy(sql, card, name, field)}"
            )
    rows = sql.execute(f"SELECT {', '.join('rows.' + quoted(name) for name in names)} {chosen}").to_arrow_table()
    reasons = {
        "left out by `where`": left_out, "malformed line": malformed, "id missing": nameless,
        f"id longer than {ID_LENGTH} characters": long,
    }  # fmt: skip
    problems = list(reading.notes)
    if conflicts:
        problems.append(
            f"{conflicts:,} rows of {parts[0].paths[0]} say something else of an id than a later row, which counts"
        )
    problems += [
        f"{name}: {count:,} values are no {side.features[name].kind} and are unknown"
        for name, count in unreadable.items()
    ]
    report = CatalogueReport(
        rows_read=read + malformed, rows=ids, dropped={reason: n for reason, n in reasons.items() if n},
        duplicates=again, problems=problems, conflicts=conflicts, unknown=unknown, unreadable=unreadable,
    )  # fmt: skip
    return Catalogue(rows.cast(schema(side)), report)


def _canonical(part: Relation, card: DatasetCard, side: Side, table: Table, before: int) -> str:
    id_ = part.column(table.id)
    if columns.is_nested(id_):
        raise CardError(f"{part.paths[0]}: the column {table.id} holds {id_.type}; an id is one value")
    left_out = "is_left_out" if table.where else "false"
    selected = [f"{columns.text(id_, card.nulls)} AS id", f'{ROW} + {before} AS "the row", {left_out} AS "left out"']
    for name, field in side.features.items():
        column = part.column(field.column)
        try:
            value, lost = _value(column, field, card)
        except CardError as error:
            raise CardError(f"{part.paths[0]}: the column {field.column} {error}") from None
        selected += [f"{value} AS {quoted(name)}", f"{lost} AS {quoted('raw ' + name)}"]
    return f"SELECT {', '.join(selected)} FROM {part.source}"


def _value(column: Column, field: Field_, card: DatasetCard) -> tuple[str, str]:
    """SQL of a feature's value, and of what the file has in its place where that is none."""
    if field.kind == "categories":
        return columns.words(column, field.separator, card.nulls), "NULL::VARCHAR"
    if columns.is_nested(column):
        raise CardError(f'holds {column.type}: several values are of kind = "categories"')
    if field.kind in ("category", "text"):
        return columns.text(column, card.nulls), "NULL::VARCHAR"
    if field.kind == "number":
        value = f"TRY_CAST({columns.number(column, card.nulls)} AS FLOAT)"
    else:
        value = columns.time_ms(column, field.time_unit, card.timezone, card.nulls)
    raw = f"left({column.sql}::VARCHAR, 60)"
    return value, f"CASE WHEN {value} IS NULL AND NOT ({columns.missing(column, card.nulls)}) THEN {raw} END"


def _remedy(sql: duckdb.DuckDBPyConnection, card: DatasetCard, name: str, field: Field_) -> str:
    """What would make a feature's unreadable values readable."""
    raw = quoted("raw " + name)
    values = [
        value for (value,) in sql.execute(f"SELECT {raw} FROM rows WHERE {raw} IS NOT NULL LIMIT {_SAMPLE}").fetchall()
    ]
    if field.kind == "number" and columns.with_commas(values):
        return ': say decimal = "," in the table'
    if field.kind == "time" and (fits := fitting(sql, values, card.timezone, LATEST_MS)):
        return "." + advice(fits)
    return "; `sql` can compute it"
