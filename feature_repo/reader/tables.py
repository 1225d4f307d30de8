"""What DuckDB reads of a card's files: relations whose columns are found by the very names that the files give them."""

import json
import re
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any, cast

import duckdb
import pyarrow as pa
import pyarrow.dataset
import pyarrow.ipc
import pyarrow.parquet as pq
from duckdb.sqltypes import DuckDBPyType

from feature_repo.card import CardError, Files, Rows
from feature_repo.reader.files import File, find, look_at
from feature_repo.reader.text import lines, literal, literals, scan

_JSON = "format='auto', ignore_errors=true, maximum_object_size=67108864"


@dataclass(frozen=True)
class Column:
    """How a column is written in SQL, and its type there; ``JSON`` for a value of a JSON object.

    decimal: what its text has between a number's whole part and the rest · key: of JSON.
    """

    sql: str
    type: str
    decimal: str = "."
    key: str = ""


@dataclass(frozen=True)
class Relation:
    """Files that are read together: a FROM clause, its columns by their own names, and which file a row is of.

    numbers: the places of the files among all · named: of JSON, a FROM clause with a column a key, of the types that
    DuckDB sees in it · header: of text, all names, also those that come twice and name no column.
    """

    source: str
    columns: dict[str, Column]
    numbers: list[int]
    paths: list[Path]
    named: str = ""
    header: tuple[str, ...] = ()

    @property
    def number(self) -> str:
        """SQL of the place of a row's file among all."""
        return f"({self.numbers})[file_index::INT + 1]"

    def column(self, name: str) -> Column:
        """The column of exactly this name.

        Raises:
            CardError: there is none; the message names the file and what it has.
        """
        if name in self.columns:
            return self.columns[name]
        if self.named:  # of which keys there are only all objects tell
            pointer = "/" + name.replace("~", "~0").replace("/", "~1")
            return Column(f"(json -> {literal(pointer)})", "JSON", key=name)
        has = ", ".join(self.columns)
        hint = ""
        if self.header.count(name) > 1:
            raise CardError(
                f"{self.paths[0]} has {self.header.count(name)} columns that are called {name}: give each a name of "
                "its own in the card (header = [...], skip = 1)"
            )
        if any(character.isdigit() for character in has) and not any(
            name.lower() == own.lower() for own in self.columns
        ):
            hint = ". If the first line is data, name the columns in the card: header = [...]"
        if (outer := name.split(".")[0]) in self.columns and outer != name:
            hint = f". If {outer} is an object, `sql` takes its parts out, as dat data init writes it"
        if has.startswith("#"):
            hint = ". If lines before the header are no data, say how many in the card: skip = 1"
        raise CardError(f"{self.paths[0]} lacks the column {name} that the dataset card names; it has: {has}{hint}")


def quoted(name: str) -> str:
    """An SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def why(error: duckdb.Error) -> str:
    """DuckDB's message without its kind and its hints."""
    return str(error).splitlines()[0].split("Error: ", 1)[-1]


def one(sql: duckdb.DuckDBPyConnection, query: str, values: list | None = None) -> tuple[Any, ...]:
    """The one row of a query's result."""
    (row,) = sql.execute(query, values or []).fetchall()
    return row


@dataclass
class Reading:
    """A reading under way: the connection, a folder for copies of files, what was said so far, and how many lines are
    no JSON where a SELECT gets the others."""

    sql: duckdb.DuckDBPyConnection
    scratch: Path
    notes: list[str] = field(default_factory=list)
    registered: int = 0
    no_json: int = 0

    def register(self, rows: object) -> str:
        """Give Arrow rows a name that SQL can read them by."""
        self.registered += 1
        self.sql.register(name := f"arrow_{self.registered}", rows)
        return name


ROW = "(row_number() OVER () - 1)"
"""SQL of a row's number in a relation, which makes DuckDB read it in its order: a table's own ``rowid`` does
not always follow what was inserted, above all where memory is short."""


def write_rows(sql: duckdb.DuckDBPyConnection, part: Relation, statement: str) -> None:
    """Run a statement that puts a relation's rows into a table.

    Raises:
        CardError: DuckDB cannot read them; the message names the first file.
    """
    try:
        sql.execute(statement)
    except duckdb.Error as error:
        raise CardError(f"{part.paths[0]} cannot be read: {why(error)}") from None


def relations(reading: Reading, spec: Files, folder: Path, files: dict[Path, int] | None = None) -> list[Relation]:
    """The files of a card as few relations as their shapes allow, in order.

    Args:
        files: Those to read, with the place of each in the log; by default all, in the order of their names.

    Raises:
        CardError: a file is missing or cannot be read.
    """
    if files is None:
        files = {path: number for number, path in enumerate(find(folder, spec))}
    known = [look_at(path, spec, folder, reading.scratch, reading.notes) for path in files]
    found = []
    for (kind, *_), group in groupby(known, key=_shape):
        together = list(group)
        number = [files[file.path] for file in together]
        if kind == "text":
            found += _text(reading, spec, together, number)
        elif kind in ("json", "jsonl"):
            found.append(_json(together, number))
        elif kind == "parquet":
            found.append(_parquet(reading, together, number))
        else:
            found += [arrow(reading, _open(file), [file.path], [at]) for file, at in zip(together, number, strict=True)]
    return found


def _shape(file: File) -> tuple:
    """Files of one shape are read by one query: some hundred files cost what one does."""
    return (file.kind, file.header, file.dialect, tuple(file.partition), parquet_schema(file))


def parquet_schema(file: File) -> str:
    """What the columns of a Parquet file are; of others nothing.

    Raises:
        CardError: it is cut off.
    """
    if file.kind != "parquet":
        return ""
    try:
        return pq.read_schema(file.readable).remove_metadata().to_string(truncate_metadata=False)
    except (pa.ArrowException, OSError) as error:
        raise CardError(f"{file.path} is no whole Parquet file: {str(error).splitlines()[0]}") from None


def _partitions(files: list[File]) -> dict[str, Column]:
    return {
        key: Column(f"({literals(file.partition[key] for file in files)})[file_index::INT + 1]", "VARCHAR")
        for key in files[0].partition
    }


def _text(reading: Reading, spec: Files, files: list[File], number: list[int]) -> list[Relation]:
    header = files[0].header
    if not header:
        reading.notes.extend(f"{file.path} is empty" for file in files)
        return []
    twice = sorted({name for name in header if header.count(name) > 1})
    columns = {name: Column(f"c{n}", "VARCHAR", spec.decimal) for n, name in enumerate(header) if name not in twice}
    rows = scan([file.readable for file in files], len(header), spec, files[0].dialect)
    return [Relation(rows, _partitions(files) | columns, number, [file.path for file in files], header=header)]


def _json(files: list[File], number: list[int]) -> Relation:
    paths = literals(file.readable for file in files)
    named = (
        f"read_json({paths}, union_by_name=true, sample_size=-1, dateformat='%%', timestampformat='%%', "
        f"hive_partitioning=false, {_JSON})"
    )
    readable = [file.readable for file in files]
    objects = lines(readable) if files[0].kind == "jsonl" else f"read_json_objects({paths}, {_JSON})"
    return Relation(objects, _partitions(files), number, [file.path for file in files], named)


def _names(reading: Reading, source: str, paths: list[Path]) -> dict[str, str]:
    try:
        described = reading.sql.execute(f"DESCRIBE SELECT * FROM {source}").fetchall()
    except duckdb.Error as error:
        raise CardError(f"{paths[0]} cannot be read: {why(error)}") from None
    return {row[0]: row[1] for row in described}


def _parquet(reading: Reading, files: list[File], number: list[int]) -> Relation:
    scan = f"read_parquet({literals(file.readable for file in files)}, hive_partitioning=false)"
    # DuckDB renames columns whose names differ in capitals only: they are told by their place.
    own = pq.read_schema(files[0].readable).names
    columns = {
        name: Column(quoted(called), type_)
        for name, (called, type_) in zip(own, _names(reading, scan, [file.path for file in files]).items(), strict=True)
    }
    return Relation(scan, _partitions(files) | columns, number, [file.path for file in files])


def arrow(reading: Reading, rows: Any, paths: list[Path], number: list[int]) -> Relation:
    """Rows of Arrow (a table, a dataset or a reader) as a relation."""
    name = reading.register(rows)
    columns = {
        own: Column(quoted(called), type_)
        for own, (called, type_) in zip(rows.schema.names, _names(reading, name, paths).items(), strict=True)
    }
    return Relation(f"(SELECT *, 0 AS file_index FROM {name})", columns, number, paths)


def _open(file: File) -> pa.dataset.Dataset | pa.RecordBatchReader:
    try:
        if file.kind == "delta":
            from deltalake import DeltaTable

            return DeltaTable(str(file.path)).to_pyarrow_dataset()
        if file.kind == "iceberg":
            return _iceberg(file.path)
        if file.kind == "stream":  # as Hugging Face's datasets are stored
            return pa.ipc.open_stream(pa.memory_map(str(file.path)))
        return pa.dataset.dataset(file.readable, format="feather" if file.kind == "arrow" else "orc")
    except ImportError as error:
        raise CardError(
            f"{file.path} is a {file.kind} table: pip install {error.name} to read it (or dat-retrieval[tables])"
        ) from None
    except (pa.ArrowException, OSError) as error:
        raise CardError(f"{file.path} cannot be read as {file.kind}: {str(error).splitlines()[0]}") from None


def source(reading: Reading, spec: Rows, folder: Path, files: dict[Path, int] | None = None) -> list[Relation]:
    """What a card's rows are read from: its files, or the result of its SELECT; with ``is_left_out`` by its ``where``.

    Args:
        files: See :func:`relations`.

    Raises:
        CardError: see :func:`relations`, :func:`select_of` and :func:`where`.
    """
    if spec.sql:
        return [select_of(reading, spec.sql, spec.tables, folder)]
    parts = relations(reading, spec, folder, files)
    if not parts and files is None:
        raise CardError(f"{', '.join(spec.paths)} in {folder}: there is nothing in it")
    return [where(reading, part, spec.where) for part in parts] if spec.where else parts


def _iceberg(path: Path) -> pa.RecordBatchReader:
    from pyiceberg.io.pyarrow import ArrowScan, schema_to_pyarrow
    from pyiceberg.table import StaticTable

    newest = max(path.glob("metadata/*.metadata.json"), key=lambda file: (file.stat().st_mtime_ns, file.name))
    table = StaticTable.from_metadata(str(newest))
    scan = table.scan()
    rows = ArrowScan(table.metadata, table.io, scan.projection(), scan.row_filter)
    schema = schema_to_pyarrow(scan.projection(), include_field_ids=False)
    # The files of a plan come in any order; a reading has one.
    tasks = sorted(scan.plan_files(), key=lambda task: task.file.file_path)
    batches = (batch.cast(schema) for task in tasks for batch in rows.to_record_batches([task]))
    return pa.RecordBatchReader.from_batches(schema, batches)


def select_of(reading: Reading, sql: str, tables: dict[str, Files], folder: Path) -> Relation:
    """The result of a card's SELECT, as a relation of one "file".

    Raises:
        CardError: it is no SELECT, or DuckDB refuses it; the message is DuckDB's.
    """
    paths: list[Path] = []
    for name, spec in tables.items():
        parts = relations(reading, spec, folder)
        paths += [path for part in parts for path in part.paths]
        reading.sql.execute(
            f"CREATE TEMP VIEW {quoted(name)} AS "
            + " UNION ALL BY NAME ".join(as_named(reading, part) for part in parts)
        )
    try:
        statements = duckdb.extract_statements(sql)
        if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
            raise CardError("`sql` has to be one SELECT")
        described = reading.sql.execute(f"DESCRIBE ({sql})").fetchall()
    except duckdb.Error as error:
        raise CardError(f"the card's `sql`: {why(error)}") from None
    columns = {row[0]: Column(quoted(row[0]), row[1]) for row in described}
    return Relation(f"(SELECT *, 0 AS file_index FROM ({sql}))", columns, [0], paths[:1])


def as_named(reading: Reading, part: Relation, *more: str) -> str:
    """A SELECT that gives a relation's columns the names that its files give them.

    Raises:
        CardError: it is JSON that cannot be read.
    """
    if part.named:
        return _typed(reading, part, *more)
    called = dict(zip(part.columns, _called(part), strict=True))
    if apart := [f"{name} is {other}" for name, other in called.items() if other != name]:
        reading.notes.append(f"{part.paths[0]} has columns that differ in capitals only: in SQL {', '.join(apart)}")
    named = [f"{column.sql} AS {quoted(called[name])}" for name, column in part.columns.items()]
    return f"SELECT {', '.join([*named, *more])} FROM {part.source}"


def _called(part: Relation) -> list[str]:
    """What SQL, to which capitals are all one, calls a relation's columns."""
    called: list[str] = []
    taken = {name.lower() for name in part.columns}
    for name in part.columns:
        apart = (f"{name}_{n}" for n in range(1, len(taken) + 1) if f"{name}_{n}".lower() not in taken)
        used = {other.lower() for other in called}
        called.append(name if name.lower() not in used else next(new for new in apart if new.lower() not in used))
    return called


def _typed(reading: Reading, part: Relation, *more: str) -> str:
    """A SELECT with a column a key, from the lines of JSON that are objects; those that are none are counted."""
    try:
        seen = reading.sql.sql(f"SELECT * FROM {part.named}")
        (no_json,) = one(reading.sql, f"SELECT count(*) - count(json) FROM {part.source}")
    except duckdb.Error as error:
        raise CardError(
            f"{part.paths[0]} begins as JSON does, and is none: {why(error)}. Write its rows as JSON lines or CSV, or "
            'let `sql` take them apart: header = ["line"] and another separator read lines as they are'
        ) from None
    structure = {name: _as_said(type_) for name, type_ in zip(seen.columns, seen.types, strict=True)}
    lower = {name.lower() for name in structure}
    if any((again := re.fullmatch(r"(.+)_\d+", name)) and again[1].lower() in lower for name in structure):
        return f"SELECT {', '.join(['*', *more])} FROM {part.named}"  # which tells keys that differ in capitals
    reading.no_json += no_json
    folders = [f"{column.sql} AS {quoted(name)}" for name, column in part.columns.items()]
    keys = [f"object.{quoted(name)}" for name in structure if name not in part.columns]
    return (
        f"SELECT {', '.join([*keys, *folders, *more])} FROM (SELECT file_index, json_transform(json, "
        f"{literal(json.dumps(structure, ensure_ascii=False))}) AS object FROM {part.source} WHERE json IS NOT NULL)"
    )


def _as_said(type_: DuckDBPyType) -> Any:
    """The structure of JSON values of a type, in which text stays text.

    DuckDB takes what looks so for UUIDs, which it writes in small letters, and for times of the day.
    """
    if type_.id == "struct":
        return {name: _as_said(inner) for name, inner in fields(type_)}
    if type_.id == "list":
        return [_as_said(fields(type_)[0][1])]
    return re.sub(r"\b(UUID|TIME)\b", "VARCHAR", str(type_))


def fields(type_: DuckDBPyType) -> list[tuple[str, DuckDBPyType]]:
    """What an object, a list or a map is made of, by name."""
    return cast("list[tuple[str, DuckDBPyType]]", type_.children)


def where(reading: Reading, part: Relation, condition: str) -> Relation:
    """A relation with one more column, ``is_left_out``, by a condition that uses the files' own names.

    Raises:
        CardError: DuckDB refuses the condition.
    """
    named = as_named(reading, part, "file_index")
    source = f"(SELECT *, NOT coalesce(({condition}), false) AS is_left_out FROM ({named}))"
    try:
        described = reading.sql.execute(f"DESCRIBE SELECT * FROM {source}").fetchall()
    except duckdb.Error as error:
        lacks = "; in `sql` a column that some files lack is null there" if "not found" in str(error) else ""
        raise CardError(f"{part.paths[0]}: the card's `where`: {why(error)}{lacks}") from None
    decimal = "," if any(column.decimal == "," for column in part.columns.values()) else "."
    own = {} if part.named else dict(zip(_called(part), part.columns, strict=True))
    columns = {own.get(row[0], row[0]): Column(quoted(row[0]), row[1], decimal) for row in described}
    return Relation(source, columns, part.numbers, part.paths)
