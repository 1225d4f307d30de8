"""Lines of a card, in TOML, of what was guessed of some files."""

import json
import re
from pathlib import Path

from feature_repo.reader.roles import WORDS, Looked, Units, is_id
from feature_repo.reader.tables import quoted


def catalogue_lines(table: Looked, side: str, key: str, times: dict[str, Units], folder: Path) -> list[str]:
    """The lines of a side's table."""
    if table.flat:
        picked = ", ".join(f"{value} AS {quoted(name)}" for name, value in table.flat.columns.items())
        lines = ["", f"[{side}.table]", f"id = {toml(key)}", *_sql(table, picked, table.flat.rows, folder)]
        lines += ["", f"[{side}]"] if len(table.different) > 1 else []
    else:
        lines = ["", f"[{side}]", f"table = {{ {', '.join([*file_lines(table, folder), f'id = {toml(key)}'])} }}"]
    features = []
    for name in table.different:
        if name == key:
            continue
        kind = "text"
        if name in table.lists:
            kind = "categories"
        elif name in times:
            kind = "time"
        elif name in table.numbers and not is_id(name):
            kind = "number"
        elif table.different[name] <= WORDS and table.different[name] < table.rows / 2:
            kind = "category"
        unit = f", time_unit = {toml(next(iter(times[name])))}" if kind == "time" else ""
        features.append(f"{toml(name)} = {{ column = {toml(name)}, kind = {toml(kind)}{unit} }}")
        if kind == "category" and side == "item" and not any(line.startswith("category") for line in lines):
            lines.append(f"category = {toml(name)}")
    return [*lines, f"[{side}.features]", *features] if features else lines


def file_lines(table: Looked, folder: Path) -> list[str]:
    paths = [
        toml(str(path.relative_to(folder) if path.is_relative_to(folder) else path))
        for path in (table.path, *table.more)
    ]
    lines = [f"path = [{', '.join(paths)}]" if table.more else f"path = {paths[0]}"]
    if table.spec.separator != ",":
        lines.append(f"separator = {toml(table.spec.separator)}")
    if table.spec.skip:
        lines.append(f"skip = {table.spec.skip}")
    if table.spec.decimal != ".":
        lines.append(f"decimal = {toml(table.spec.decimal)}")
    if table.spec.header:
        lines.append(f"header = [{', '.join(map(toml, table.spec.header))}]")
    return lines


def select_lines(table: Looked, chosen: dict[str, str], clock: str | None, exploded: bool, folder: Path) -> list[str]:
    """A SELECT that makes clicks of what columns alone cannot say."""
    name = _called(table)
    written = table.flat.columns if table.flat else {column: quoted(column) for column in table.different}
    picked = []
    for role, column in chosen.items():
        value = written[column]
        if role == "item" and exploded:
            value = f"unnest({value})"
        if role == "time" and clock:
            value = f"{value} || ' ' || {written[clock]}"
        picked.append(f"{value} AS {role}")
    rows = table.flat.rows if table.flat else quoted(name)
    columns = [f"{role} = {toml(role)}" for role in ("event_type", "value") if role in chosen]
    return _sql(table, ", ".join(picked), rows, folder) + columns


def _sql(table: Looked, picked: str, rows: str, folder: Path) -> list[str]:
    return [
        f"tables.{toml(_called(table))} = {{ {', '.join(file_lines(table, folder))} }}",
        "sql = '''", f"SELECT {picked}", f"FROM {rows}", "'''",
    ]  # fmt: skip


def _called(table: Looked) -> str:
    return table.flat.called if table.flat else called(table.path)


def called(path: Path) -> str:
    """What SQL calls a file."""
    name = next(part for part in reversed(path.parts) if "*" not in part)
    return re.sub(r"\W", "_", name.split(".")[0])


def toml(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
