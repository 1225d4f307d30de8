"""Clicks of one form from whatever a card describes: staged in DuckDB, checked, counted, each once.

A row is ``event_id, query_id, item_id, event_time`` (ms), ``event_type``, ``value`` and ``position``: its place in the
log, by file and then by row, which tells rows of one time apart.

What makes two rows one event: the same event id, where the card names its column. Else the same query, item, time and
type; and where a file's times are whole days, also the same count: the second row of a day that says the same is the
second event of that day, whichever file it is read from. In a log without times each row is an event.
"""

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa

from feature_repo.card import CardError, DatasetCard
from feature_repo.limits import EARLIEST_MS, ID_LENGTH
from feature_repo.reader import columns
from feature_repo.reader.faults import (
    NUMBER,
    REASONS,
    WRONG,
    Faults,
    faults_of,
    latest_ms,
    refuse,
)
from feature_repo.reader.tables import ROW, Column, Reading, Relation, arrow, one, source, where, write_rows
from feature_repo.reader.text import literal

MEMORY = "2GB"
ROWS_A_FILE = 1 << 40  # a position is the file's number times this, and the row's
KEPT = "reason = 0 AND n NOT IN (SELECT n FROM merged)"
COLUMNS = ("event_id", "query_id", "item_id", "event_time", "event_type", "value", "position")


@dataclass(frozen=True)
class Staged:
    """Clicks that were read into tables of a DuckDB connection.

    ``staged``: all rows in the order of the log, ``file, query_id, item_id, event_time, event_type, value, own_id,
    reason, raw, n``, n being its number · ``files``: ``file, first_row`` · ``merged (n)``: those that repeat another ·
    ``again (n, k)``: those that are the k-th of their file to say the same, k > 0.
    """

    reading: Reading
    card: DatasetCard
    parts: list[Relation]
    faults: Faults

    @property
    def sql(self) -> duckdb.DuckDBPyConnection:
        return self.reading.sql

    @property
    def kept(self) -> str:
        """A SELECT of the rows that are kept, with ``file``."""
        # Without times a file is a sequence of its own.
        file = ", file" if self.card.clicks.timeless else ""
        id_ = f"md5(concat_ws(chr(31), query_id, item_id, event_time, coalesce(event_type, ''), coalesce(k, 0){file}))"
        return (
            f"SELECT file, coalesce(own_id, {id_}) AS event_id, query_id, item_id, event_time, event_type, value, "
            f"file * {ROWS_A_FILE} + staged.n - first_row AS position "
            "FROM staged JOIN files USING (file) LEFT JOIN again ON again.n = staged.n "
            "WHERE reason = 0 AND staged.n NOT IN (SELECT n FROM merged)"
        )


def read_clicks(card: DatasetCard, folder: Path, signals: bool = False) -> pa.Table:
    """All clicks of a log in order of time, those of one time in the log's order.

    Args:
        folder: Where the card's files are (:func:`feature_repo.source.dataset_folder`).
        signals: With the events that are a signal against their item.

    Raises:
        CardError: see :func:`stage`.
    """
    with stage(card, folder) as staged:
        return clicks_of(staged, signals)


def clicks_of(staged: Staged, signals: bool = False) -> pa.Table:
    """What :func:`read_clicks` returns, of rows that are staged."""
    events = staged.card.clicks.events.items()
    rest_types = [name for name, weight in events if weight == 0 or (weight < 0 and not signals)]
    rest = f"WHERE event_type NOT IN ({', '.join(map(literal, rest_types))})" if rest_types else ""
    rows = f"SELECT {', '.join(COLUMNS)} FROM ({staged.kept}) {rest} ORDER BY event_time, position"
    return staged.sql.execute(rows).to_arrow_table()


@contextmanager
def stage(
    card: DatasetCard, folder: Path, files: dict[Path, int] | None = None, whole: bool = True
) -> Iterator[Staged]:
    """Read a card's log into a DuckDB that keeps to a bounded memory and puts the rest on disk.

    Args:
        files: See :func:`feature_repo.reader.tables.relations`.
        whole: That is all of the log that is read: refuse it if most of it is of no use.

    Raises:
        CardError: a file or a column is missing or of no use, or most times lie where none can be.
    """
    with tempfile.TemporaryDirectory(prefix="dat-read-") as scratch, connect(card, Path(scratch)) as sql:
        (Path(scratch) / "copies").mkdir()
        reading = Reading(sql, Path(scratch) / "copies")
        staged = stage_relations(reading, card, source(reading, card.clicks, folder, files))
        if whole:
            refuse(card, staged.faults)
        yield staged


@contextmanager
def stage_batches(card: DatasetCard, batches: Iterable[pa.RecordBatch], number: int) -> Iterator[Staged]:
    """Like :func:`stage`, for rows that another engine hands over as Arrow; they count as one file."""
    with tempfile.TemporaryDirectory(prefix="dat-read-") as scratch, connect(card, Path(scratch)) as sql:
        reading = Reading(sql, Path(scratch))
        parts = (
            [arrow(reading, pa.Table.from_batches(filled), [Path("table")], [number])]
            if (filled := list(batches))
            else []
        )
        yield stage_relations(
            reading, card, [where(reading, part, card.clicks.where) for part in parts] if card.clicks.where else parts
        )


@contextmanager
def connect(card: DatasetCard, scratch: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """A DuckDB for a reading, in the card's time zone, with a place to spill to."""
    with duckdb.connect(config={"memory_limit": MEMORY, "temp_directory": str(scratch / "spill")}) as sql:
        sql.execute(f"SET TimeZone = {literal(card.timezone)}")
        yield sql


def stage_relations(reading: Reading, card: DatasetCard, parts: list[Relation]) -> Staged:
    """Read relations into the tables of :class:`Staged`."""
    sql, spec = reading.sql, card.clicks
    sql.execute(
        "CREATE TABLE staged (file BIGINT, query_id VARCHAR, item_id VARCHAR, event_time BIGINT, event_type VARCHAR, "
        "value DOUBLE, value_unreadable BOOLEAN, own_id VARCHAR, reason UTINYINT, raw VARCHAR, n BIGINT)"
    )
    for part in parts:
        (before,) = one(sql, "SELECT count(*) FROM staged")
        write_rows(sql, part, f"INSERT INTO staged {_canonical(part, card, before)}")
    if spec.time_unit == "order":
        sql.execute("UPDATE staged SET event_time = n * 1000")
    sql.execute("CREATE TABLE files AS SELECT file, min(n) AS first_row FROM staged GROUP BY file")
    staged = Staged(reading, card, parts, faults_of(reading, card, parts))
    _find_repeats(staged)
    return staged


def _canonical(part: Relation, card: DatasetCard, before: int) -> str:
    """A SELECT of the columns of ``staged`` from a relation, whose rows are numbered behind those before."""
    spec, nulls = card.clicks, card.nulls

    def column(key: str) -> Column:
        name = getattr(spec, key) or key  # by which a SELECT may give it
        chosen = part.column(name)
        if columns.is_nested(chosen):
            todo = "take it apart, as dat data init writes it"
            if chosen.type.endswith("]"):
                todo = f"unnest it, such as SELECT unnest({name}) AS {key}, … FROM log"
            raise CardError(
                f"{part.paths[0]}: the column {name} holds {chosen.type} where a row should have one value; one row is "
                f"one click: `sql` can {todo}"
            )
        return chosen

    def optional(key: str) -> Column | None:
        return column(key) if getattr(spec, key) or (spec.sql and key in part.columns) else None

    query, item = column("query"), column("item")
    event_id, event_type, value = (optional(key) for key in ("event_id", "event_type", "value"))
    kind = columns.text(event_type, nulls) if event_type else "NULL"
    amount = columns.number(value, nulls) if value else "NULL"
    own = columns.text(event_id, nulls) if event_id else "NULL"
    lost = f"NOT ({columns.missing(value, nulls)}) AND {amount} IS NULL" if value else "false"
    reasons = {}
    if spec.where:
        reasons["left out by `where`"] = "is_left_out"
    moment = None if spec.time_unit == "order" else column("time")
    if {query.type, item.type} == {"JSON"}:
        reasons["malformed line"] = "query_id IS NULL AND item_id IS NULL"
    if spec.events:
        known = ", ".join(map(literal, spec.events))
        reasons["event type not in `events`"] = f"event_type IS NULL OR event_type NOT IN ({known})"
    if spec.at_least is not None:
        low, against = f"amount < {spec.at_least!r}::DOUBLE", ", ".join(map(literal, spec.rule.against))
        reasons["value below `at_least`"] = f"{low} AND event_type NOT IN ({against})" if against else low
    longer = " OR ".join(f"length({name}) > {ID_LENGTH}" for name in ("query_id", "item_id", "own_id"))
    reasons |= {"query id missing": "query_id IS NULL", "item id missing": "item_id IS NULL", REASONS[6]: longer}
    if event_id:
        reasons["event id missing"] = "own_id IS NULL"
    ms, no_time, raw = "0", "false", "NULL"
    if moment:
        try:
            ms = columns.time_ms(moment, spec.time_unit, card.timezone, nulls)
        except CardError as error:
            raise CardError(f"{part.paths[0]}: the column {spec.time} {error}") from None
        no_time, raw = columns.missing(moment, nulls), f"left({moment.sql}::VARCHAR, 60)"
        reasons |= {"time missing": "no_time", "time unreadable": "ms IS NULL"}
        if not spec.timeless:
            reasons["time out of range"] = f"ms NOT BETWEEN {EARLIEST_MS} AND {latest_ms()}"
    cases = " ".join(f"WHEN {holds} THEN {NUMBER[reason]}" for reason, holds in reasons.items())
    left_out = ", is_left_out" if spec.where else ""
    return (
        f"SELECT file, query_id, item_id, ms, event_type, amount, lost, own_id, reason, "
        f"CASE WHEN reason IN {WRONG} THEN raw END, n FROM (SELECT *, CASE {cases} ELSE 0 END AS reason FROM ("
        f"SELECT {ROW} + {before} AS n, {part.number} AS file, {columns.text(query, nulls)} AS query_id, "
        f"{columns.text(item, nulls)} AS item_id, {ms} AS ms, {kind} AS event_type, "
        f"{amount} AS amount, {lost} AS lost, {own} AS own_id, {no_time} AS no_time, {raw} AS raw{left_out} "
        f"FROM {part.source}))"
    )


def _find_repeats(staged: Staged) -> None:
    """Fill ``again`` and ``merged``. Only rows whose hash is that of another are looked at."""
    sql, spec = staged.sql, staged.card.clicks
    own = spec.event_id or (spec.sql and any("event_id" in part.columns for part in staged.parts))
    same = "own_id" if own else "query_id, item_id, event_time, event_type"
    sql.execute("CREATE TABLE again (n BIGINT, k BIGINT); CREATE TABLE merged (n BIGINT)")
    if spec.timeless and not own:
        _count_again(sql, same, "SELECT file FROM files")
        return
    sql.execute(
        f"CREATE TABLE twins AS SELECT twin FROM (SELECT hash({same}) AS twin FROM staged WHERE reason = 0) "
        "GROUP BY twin HAVING count(*) > 1"
    )
    if not one(sql, "SELECT count(*) FROM twins")[0]:
        return
    if not own:
        day = "epoch_ms(date_trunc('day', make_timestamptz(event_time * 1000)))"
        _count_again(
            sql, same, f"SELECT file FROM staged WHERE reason = 0 GROUP BY file HAVING "
            f"bool_and(CASE WHEN event_time % 900000 = 0 THEN event_time = {day} ELSE false END)"
        )  # fmt: skip
    sql.execute(
        f"INSERT INTO merged SELECT n FROM (SELECT n, row_number() OVER (PARTITION BY {same}, k ORDER BY n) AS nth "
        f"FROM (SELECT n, {same} FROM staged WHERE reason = 0 AND hash({same}) IN (SELECT twin FROM twins)) "
        "LEFT JOIN again USING (n)) WHERE nth > 1"
    )


def _count_again(sql: duckdb.DuckDBPyConnection, same: str, files: str) -> None:
    sql.execute(
        f"INSERT INTO again SELECT n, k FROM (SELECT n, row_number() OVER (PARTITION BY file, {same} "
        f"ORDER BY n) - 1 AS k FROM staged WHERE reason = 0 AND file IN ({files})) WHERE k > 0"
    )
