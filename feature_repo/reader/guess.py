"""A first card for some files: which column is what, guessed from names and values, and said."""

import re
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import duckdb

from feature_repo.card import NULLS, CardError, Files, is_remote
from feature_repo.reader import columns
from feature_repo.reader.card_text import called, catalogue_lines, file_lines, select_lines, toml
from feature_repo.reader.faults import latest_ms, malformed_lines, ragged
from feature_repo.reader.files import File, find, is_table, look_at
from feature_repo.reader.lines import divided
from feature_repo.reader.nested import flatten
from feature_repo.reader.roles import (
    ENOUGH,
    Looked,
    Units,
    clock_beside,
    crosstab,
    flag_of_clicks,
    is_grade,
    is_id,
    is_id_of_else,
    is_packed,
    is_unique,
    item_rank,
    named,
    named_roles,
    roles,
)
from feature_repo.reader.tables import Column, Reading, as_named, one, parquet_schema, quoted, relations
from feature_repo.reader.units import MOSTLY, SURE, fitting, zoneless
from feature_repo.reader.unread import of_parts, of_times

SAMPLE = 10_000  # rows
FILES = 100  # of a folder are looked into
WIDEST = 1_000  # columns that a row of text can have


@dataclass
class Guess:
    """A card's text, and what was guessed."""

    text: str = ""
    said: list[str] = field(default_factory=list)


def guess(files: list[Path], folder: Path, name: str) -> Guess:
    """A card for files, of which one or several alike have the clicks and the others may be catalogues.

    Args:
        folder: Where the card will be; paths are written relative to it.

    Raises:
        CardError: a file cannot be read, or none has what could be a query and an item.
    """
    found = Guess()
    if missing := [str(path) for path in files if not path.exists()]:
        how = "mount that storage or copy them, and " if any(map(is_remote, missing)) else ""
        raise CardError(f"there is no {', '.join(missing)}; {how}give the paths of the log's files")
    with tempfile.TemporaryDirectory(prefix="dat-read-") as scratch, duckdb.connect() as sql:
        sql.execute("SET TimeZone = 'UTC'")
        reading = Reading(sql, Path(scratch))
        tables = [table for group in _groups(reading, files, found) if (table := _look(reading, group, found))]
        units = {table.path: _times(sql, table) for table in tables}
        chosen_of = {
            table.path: roles(sql, table, units[table.path], [other for other in tables if other is not table])
            for table in tables
        }
        logs = [table for table in tables if {"query", "item"} <= chosen_of[table.path].keys()]
        if not logs:
            raise CardError(
                "no two columns could be a query and an item; write the card by hand (docs/own-data.md). "
                + ("; ".join(map(_has, tables)) or "The files are empty")
            )
        log = max(logs, key=lambda table: (*(named_roles(chosen_of[table.path])), table.rows))
        chosen, times = chosen_of[log.path], units[log.path]
        alike = [table for table in tables if table is not log and _is_alike(table, log, chosen)]
        log = replace(log, more=[*log.more, *(path for table in alike for path in (table.path, *table.more))])
        for role in [role for role, column in chosen.items() if any(column not in part.different for part in alike)]:
            found.said.append(f"{chosen[role]} is not taken for the {role}: some of the files lack it")
            del chosen[role]
        others = [table for table in tables if table.path != log.path and table not in alike]
        first, *more = _by_folder([log.path, *log.more], files)
        log = replace(log, path=first, more=more)
        found.said = list(dict.fromkeys(found.said))
        found.said.append(
            f"{', '.join(map(_short, (log.path, *log.more)))} {'have' if log.more else 'has'} the clicks: "
            + ", ".join(f"{role} = {column}" for role, column in chosen.items())
        )
        lines = [f"name = {toml(name)}", f"title = {toml(name)}", 'folder = ""', "", "[clicks]"]
        lines += _clicks(sql, log, chosen, times, folder, found)
        sides: dict[str, Looked] = {}
        for table in others:
            side, key = _side_of(table, log, chosen, found)
            if not side:
                continue
            if side not in sides:
                sides[side] = _with_parts(table, others)
                if side == "query" and (joined := of_parts(log, chosen, table, key, list(units[table.path]))):
                    found.said.append(joined)
                lines += catalogue_lines(sides[side], side, key, units[table.path], folder)
            elif table.path not in sides[side].more:
                found.said.append(
                    f"{table.path.name} is left out: {sides[side].path.name} is the {side} catalogue already, "
                    "and `sql` can join the two"
                )
        found.text = "\n".join(lines) + "\n"
    return found


def _is_alike(table: Looked, log: Looked, chosen: dict[str, str]) -> bool:
    """Whether a file has more of a log: all columns that were chosen, or the same ones where they have no names."""
    if table.spec.model_copy(update={"path": ""}) != log.spec.model_copy(update={"path": ""}):
        return False
    if table.is_nameless and table.numbers != log.numbers:
        return False
    needed = {column for role, column in chosen.items() if role in ("query", "item", "time")}
    return needed <= table.different.keys() and (table.flat is None) == (log.flat is None) and "time" in chosen


def _clicks(
    sql: duckdb.DuckDBPyConnection, log: Looked, chosen: dict[str, str], times: dict[str, Units], folder: Path,
    found: Guess,
) -> list[str]:  # fmt: skip
    """The lines of a card's clicks."""
    unit, how, unread = "order", None, list[str]()
    if "time" not in chosen:
        unread = [name for name in log.different if named(name, "time") and log.values[name]]
        found.said += [of_times(name, log.values[name]) for name in unread]
        found.said.append("no column has times that can be read: the order of the rows is taken for it")
    else:
        time = chosen["time"]
        unit = next(iter(times[time]))
        clock = clock_beside(log, time) if unit == "date" or "%" in unit else None
        if clock and (joined := _with_clock(sql, log, time, clock)):
            unit, how = joined, f"{time} and {clock}"
        first, last = times[time][next(iter(times[time]))]
        found.said.append(f"{how or time} is taken for {unit}: a sample lies from {first} to {last}")
        if zoneless(_moments(log, time, clock) if clock and how else log.values[time], unit):
            found.said.append(
                f"{how or time} has no zone and is read as UTC; a line at the top of the card says another, such as "
                'timezone = "Europe/Oslo"'
            )
        if not how and (others := [other for other in times[time] if other != unit]):
            found.said.append(f"it could also be {', '.join(others)}: look at the first rows")
    exploded = chosen["item"] in log.lists
    if exploded:
        found.said.append(f"{chosen['item']} holds lists: `sql` makes a row of each item")
    if log.flat or exploded or how:
        lines = select_lines(log, chosen, clock if how else None, exploded, folder)
    else:
        lines = file_lines(log, folder) + [f"{role} = {toml(column)}" for role, column in chosen.items()]
    lines += [f"# times of {toml(name)} are not read, such as {toml(log.values[name][0])}" for name in unread]
    lines.append(f"time_unit = {toml(unit)}")
    if "event_type" in chosen:
        lines.append(_types(sql, log, chosen, found))
    if flag := flag_of_clicks(log):
        name, no, yes = flag
        condition = f"{quoted(name)} = '{yes}'"
        found.said.append(
            f"every row counts as a click, also where {name} is {no}; `where` leaves those out: {condition}"
        )
        lines.append(f"# where = {toml(condition)}")
    if "value" in chosen and is_grade(log, chosen["value"]):
        grades = sorted(map(float, log.values[chosen["value"]]))
        found.said.append(
            f"every row counts as a click, whatever its {chosen['value']} ({grades[0]:g} to {grades[-1]:g}); "
            "`at_least` makes lower ones none"
        )
        lines.append(f"# at_least = {grades[len(grades) // 2]}")
    return lines


def _types(sql: duckdb.DuckDBPyConnection, log: Looked, chosen: dict[str, str], found: Guess) -> str:
    """The line that says which types of events count: all, unless some never have an item."""
    kind, item = (f"c{list(log.different).index(chosen[role])}" for role in ("event_type", "item"))
    counts = (
        f"SELECT {kind}, count({item}) FROM {log.sample} WHERE {kind} IS NOT NULL GROUP BY 1 ORDER BY count(*) DESC"
    )
    with_item = dict(sql.execute(f"{counts}, 1").fetchall())
    # Values that are lists are not in the sample.
    kinds = [name for name, count in with_item.items() if count or chosen["item"] in log.lists]
    weights = "events = { " + ", ".join(f"{toml(name)} = 1.0" for name in kinds) + " }"
    if without := [name for name in with_item if name not in kinds]:
        found.said.append(
            f"{', '.join(without[:8])} have no {chosen['item']}: `events` leaves them out, and says what each other "
            "type weighs"
        )
        return weights
    found.said.append(f"every type of event counts as a click; `events` says what each weighs: {', '.join(kinds[:8])}")
    return f"# {weights}"


def _with_clock(sql: duckdb.DuckDBPyConnection, log: Looked, date: str, clock: str) -> str | None:
    """The unit of a date followed by a time of the day."""
    return next(iter(fitting(sql, _moments(log, date, clock), "UTC", latest_ms())), None)


def _moments(log: Looked, date: str, clock: str) -> list[str]:
    return [f"{day} {at}" for day, at in zip(log.values[date], log.values[clock], strict=False)]


@dataclass(frozen=True)
class _Group:
    """Files of one shape.

    path, more: as a card names them; a folder that has nothing else is one path · root: the folder in which they are ·
    first: the first of them.
    """

    path: Path
    more: list[Path]
    root: Path
    files: list[Path]
    first: File


def _groups(reading: Reading, given: list[Path], found: Guess) -> list[_Group]:
    """Files by their shapes: of a thousand alike a few tell what all of them hold."""
    groups: dict[object, list[tuple[Path, Path, File]]] = {}
    shapes_of: dict[Path, set[object]] = {}
    for path in map(Path.absolute, given):
        folder = path.is_dir() and not is_table(path)
        for inside in find(path.parent, Files(path=path.name)) if folder else [path]:
            file = look_at(inside, Files(path=inside.name), path.parent, reading.scratch, [])
            if file.kind == "text" and not file.header:
                found.said.append(f"{inside.name} is empty")
                shape: object = ()
            else:
                shape = (_shape(file), folder and tuple(file.partition))
                groups.setdefault(shape, []).append((path, inside, file))
            shapes_of.setdefault(path, set()).add(shape)
    made = []
    for members in groups.values():
        paths = [
            path if path.is_dir() and not is_table(path) and len(shapes_of[path] - {()}) == 1 else inside
            for path, inside, _ in members
        ]
        first, *more = dict.fromkeys(paths)
        files = [inside for _, inside, _ in members[:FILES]]
        made.append(_Group(first, more, members[0][0].parent, files, members[0][2]))
    return made


def _by_folder(paths: list[Path], given: list[Path]) -> list[Path]:
    """A log's files by their folder, or by how their names alone end there, so that new files count, too."""
    for folder in [path for path in map(Path.absolute, given) if path.is_dir() and not is_table(path)]:
        inside = [path for path in find(folder.parent, Files(path=folder.name)) if path.stat().st_size]
        mine = [path for path in inside if path in paths]
        ends = {path.suffix for path in mine}
        if not mine:
            continue
        if len(mine) == len(inside):
            whole = folder
        elif len(ends) == 1 and "" not in ends and not ends & {path.suffix for path in inside if path not in mine}:
            deep = any(path.parent != folder for path in mine)
            whole = folder / ("**" if deep else "") / f"*{ends.pop()}"
        else:
            continue
        paths = [whole, *(path for path in paths if path not in mine)]
    return paths


def _short(path: Path) -> str:
    first = next((n for n, part in enumerate(path.parts) if "*" in part), len(path.parts))
    return "/".join(path.parts[first - 1 :])


def _shape(file: File) -> object:
    """What files have in common that are read together: their names of columns, or how many they have without names."""
    if file.kind == "text":
        separator, skip = divided(file.first)
        names = file.first[skip].split(separator) if skip < len(file.first) else []
        return file.kind, separator, skip, len(names) if _are_values(names) else frozenset(names)
    if file.kind == "parquet":
        return file.kind, parquet_schema(file)
    return file.kind, file.keys or file.path


def _are_values(names: Iterable[str]) -> bool:
    return any(re.fullmatch(r"-?\d[\d.:/ +TZ-]*", name) for name in names)


def _look(reading: Reading, group: _Group, found: Guess) -> Looked | None:
    path, spec = group.path, Files(path=[str(file) for file in group.files])
    if group.first.kind == "text":
        separator, skip = divided(group.first.first)
        spec = spec.model_copy(update={"separator": separator, "skip": skip})
        if skip:
            found.said.append(f"{path.name}: {skip} line(s) before the header are passed over")
    part, *_ = parts = relations(reading, spec, group.root)
    if len(part.header) > WIDEST:
        raise CardError(
            f"{path} has {len(part.header):,} columns in its first line: its rows are no lines, or the separator is "
            "another one. Export it as CSV or Parquet"
        )
    if part.named or any(re.search(r"STRUCT|UNION|MAP", column.type) for column in part.columns.values()):
        return _look_nested(reading, spec, group, as_named(reading, part), bool(part.named), found)
    if _are_values(part.header):
        names = [f"column_{n + 1}" for n in range(len(part.header))]
        spec = spec.model_copy(update={"header": names})
        part, *_ = relations(reading, spec, group.root)
        found.said.append(f"{path.name} has no header line: its columns are called {', '.join(names)}")
    elif twice := sorted({name for name in part.header if name and part.header.count(name) > 1}):
        said = f"{path.name} has several columns that are called {', '.join(twice)}"
        if len(parts) == 1:
            names = _apart(part.header)
            said += f": the later ones are called {', '.join(name for name in names if name not in part.header)}"
            spec = spec.model_copy(update={"header": names, "skip": spec.skip + 1})
            part, *_ = relations(reading, spec, group.root)
        found.said.append(said)
    found.said += reading.notes
    reading.notes.clear()
    lists = {name for name, column in part.columns.items() if columns.is_nested(column)}
    before = malformed_lines(reading)
    looked = _sample(reading, group, spec, part.columns, lists, part.source)
    if (bad := malformed_lines(reading) - before) > looked.rows:
        raise CardError(ragged(path, bad, looked.rows, len(part.header)))
    if spec.separator != "," and looked.numbers < (commas := _with_commas(looked)):
        found.said.append(f"{path.name} has decimal commas in {', '.join(sorted(commas - looked.numbers))}")
        spec = spec.model_copy(update={"decimal": ","})
        return replace(looked, spec=spec, numbers=commas, fractions=looked.fractions | (commas - looked.numbers))
    return looked


def _apart(names: Sequence[str]) -> list[str]:
    """Names of columns of which none comes twice."""
    apart: list[str] = []
    for name in names:
        count = names[: len(apart)].count(name)
        apart.append(name if not count else next(
            new for n in range(count + 1, len(names) + 2) if (new := f"{name}_{n}") not in {*names, *apart}
        ))  # fmt: skip
    return apart


def _with_commas(looked: Looked) -> set[str]:
    """The columns that hold numbers, if a comma stands before their fractions."""
    return looked.numbers | {name for name, values in looked.values.items() if values and columns.with_commas(values)}


def _look_nested(
    reading: Reading, spec: Files, group: _Group, select: str, is_json: bool, found: Guess
) -> Looked:  # fmt: skip
    path, name = group.path, called(group.path)
    reading.sql.execute(f"CREATE OR REPLACE TEMP VIEW {quoted(name)} AS {select}")
    flat = flatten(reading.sql, quoted(name), name, item_rank)
    if flat.deep:
        found.said.append(f"{path.name} holds lists of objects: `sql` makes a row of each")
        none = f"coalesce(len({flat.deep[0]}), 0) = 0"
        empty, rows = one(reading.sql, f"SELECT count(*) FILTER ({none}), count(*) FROM {quoted(name)} t0")
        if empty:
            found.said.append(f"{empty:,} of {rows:,} rows have nothing in {flat.deep[0]}, and are left out")
    plain = all(value == f"t0.{quoted(key)}" for key, value in flat.columns.items()) and not flat.deep
    if is_json:  # whatever the type, so that ids are text as the reader has it
        types = {key: Column(f"to_json({value})", "JSON") for key, value in flat.columns.items()}
    else:
        picked = ", ".join(f"{value} AS {quoted(key)}" for key, value in flat.columns.items())
        described = reading.sql.execute(f"DESCRIBE SELECT {picked} FROM {flat.rows}").fetchall()
        types = {key: Column(flat.columns[key], kind) for key, kind, *_ in described}
    looked = _sample(reading, group, spec, types, flat.lists, flat.rows)
    return looked if plain else replace(looked, flat=flat)


def _sample(
    reading: Reading, group: _Group, spec: Files, columns_: dict[str, Column], lists: set[str], source: str
) -> Looked:
    texts = ", ".join(
        f"{'NULL' if name in lists else columns.text(column, list(NULLS))} AS c{n}"
        for n, (name, column) in enumerate(columns_.items())
    )
    sample = quoted(f"sample of {group.path}")
    reading.sql.execute(f"CREATE OR REPLACE TABLE {sample} AS SELECT {texts} FROM {source} LIMIT {SAMPLE}")
    different, filled_rows, values, numbers, fractions = {}, {}, {}, set(), set()
    (rows,) = one(reading.sql, f"SELECT count(*) FROM {sample}")
    for n, name in enumerate(columns_):
        count, filled, numeric, whole = one(
            reading.sql, f"SELECT count(DISTINCT c{n}), count(c{n}), count(TRY_CAST(c{n} AS DOUBLE)), "
            f"bool_and(TRY_CAST(c{n} AS DOUBLE) % 1 = 0) FROM {sample}"
        )  # fmt: skip
        different[name], filled_rows[name] = count, filled
        if filled and numeric == filled:
            numbers.add(name)
            if not whole:
                fractions.add(name)
        some = reading.sql.execute(
            f"SELECT c{n} FROM {sample} WHERE c{n} IS NOT NULL GROUP BY 1 ORDER BY count(*) DESC LIMIT 1000"
        )
        values[name] = [value for (value,) in some.fetchall()]
    return Looked(
        group.path, spec, different, filled_rows, values, rows, numbers, fractions, lists, sample, more=group.more
    )


def _has(table: Looked) -> str:
    """What a file has, and why some of it is of no use."""
    if wide := crosstab(table):
        key = ", ".join(quoted(name) for name in table.different if name not in wide) or "a column of ids"
        return (
            f"{table.path.name} has {len(wide):,} columns of numbers, as a table with a column for each item. With "
            "tables.wide = { path = ... }, `sql` makes rows of it: "
            f"SELECT {key} AS query, item, value, row_number() OVER () AS time "
            f"FROM (UNPIVOT wide ON COLUMNS(* EXCLUDE ({key})) INTO NAME item VALUE value)"
        )
    said = [
        f"{name} (always {table.values[name][0][:40]})" if table.different[name] == 1
        else f"{name} (several ids in one text: `sql` can split them, as in unnest(string_split({name}, ' ')))"
        if is_packed(table, name)
        else f"{name} (another value in each row)" if is_unique(table, name) and table.rows >= ENOUGH
        else name
        for name in table.different
    ]  # fmt: skip
    return f"{table.path.name} has {', '.join(said)}"


def _times(sql: duckdb.DuckDBPyConnection, table: Looked) -> dict[str, Units]:
    """By column that could hold times, the units that fit."""
    fits = {
        name: fitting(sql, values, "UTC", latest_ms(), MOSTLY if named(name, "time") else SURE)
        for name, values in table.values.items()
        if name not in table.lists
    }
    # Numbers below a million are counts rather than days since 1970 or 1899.
    days = {"d", "excel"}
    return {name: units for name, units in fits.items() if units and (not set(units) <= days or named(name, "time"))}


def _side_of(table: Looked, log: Looked, clicks: dict[str, str], found: Guess) -> tuple[str, str]:
    """The side whose ids a catalogue has, or else is called after, and its column of ids; nothing if it is none."""
    # Small numbers are the ids of several things.
    names = [
        name
        for name in table.different
        if name not in table.lists
        and not (name in table.numbers and is_id_of_else(name) and name not in clicks.values())
    ]
    if not names:
        found.said.append(
            f"{table.path.name} is left out: its ids ({', '.join(table.different)}) are called after neither "
            f"{clicks['query']} nor {clicks['item']}"
        )
        return "", ""
    common = {
        (side, name): len(set(table.values[name]) & set(log.values[clicks[side]]))
        for side in ("item", "query")
        for name in names
    }
    called = not table.is_nameless
    side, key = max(common, key=lambda pair: (
        table.is_key(pair[1]) and common[pair] > 0, common[pair] > 0 and called and clicks[pair[0]] == pair[1],
        common[pair], clicks[pair[0]] == pair[1],
        pair[0] == "item",
        table.different[pair[1]], -names.index(pair[1]),
    ))  # fmt: skip
    if not common[side, key]:
        if clicks[side] != key and not (table.is_key(key) and named(key, side) and is_id(key)):
            found.said.append(f"{table.path.name} is left out: it has none of the clicks' first ids")
            return "", ""
        found.said.append(f"{table.path.name} has none of the clicks' first ids; is it a catalogue of theirs?")
    found.said.append(f"{table.path.name} is taken for the {side} catalogue, with the id {key}")
    return side, key


def _with_parts(table: Looked, others: list[Looked]) -> Looked:
    """A catalogue with the files that have the same columns."""
    alike = [
        path
        for other in others
        if other is not table and other.different.keys() == table.different.keys() and not table.flat
        for path in (other.path, *other.more)
    ]
    return replace(table, more=[*table.more, *alike])
