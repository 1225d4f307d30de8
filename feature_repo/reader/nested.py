"""JSON objects that hold others: the SELECT that makes a row of each of the innermost."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import duckdb

from feature_repo.reader.tables import quoted

_GENERIC = ("id", "name", "value", "key", "type")


@dataclass(frozen=True)
class Flat:
    """Nested rows, flattened.

    rows: a FROM clause with a row an innermost object · columns: how each single value is written in SQL, by a name
    made of the keys on its way · lists: those that hold several values · deep: the lists that were unnested.
    """

    rows: str
    columns: dict[str, str]
    lists: set[str]
    deep: list[str]


def flatten(
    sql: duckdb.DuckDBPyConnection, source: str, called: str, likely: Callable[[str], bool] = lambda name: False
) -> Flat:
    """Follow a relation's objects and lists of objects down to single values.

    Args:
        source: A FROM clause. called: The name that the result's ``rows`` have for it.
        likely: Of a key that is looked for. Of several lists of a level that one is followed which has most such keys,
            or else the first.
    """
    relation = sql.sql(f"SELECT * FROM {source}")
    rows, columns, lists = [f"{quoted(called)} AS t0"], dict[str, str](), set[str]()
    open_lists: list[tuple[str, tuple[str, ...], str, duckdb.sqltypes.DuckDBPyType]] = []

    def take(fields: list[tuple[str, duckdb.sqltypes.DuckDBPyType]], value: str, way: tuple[str, ...]) -> None:
        for key, type_ in fields:
            here, path = f"{value}.{quoted(key)}", (*way, key)
            short = 2 if key in _GENERIC and len(path) > 1 else 1  # the shortest name that says something
            name = next(n for k in range(short, len(path) + 2) if (n := "_".join(path[-k:])) not in columns)
            if type_.id == "struct":
                take(_fields(type_), here, path)
            elif type_.id == "list" and _fields(type_)[0][1].id == "struct":
                open_lists.append((here, path, name, _fields(type_)[0][1]))
            else:
                columns[name] = here
                if type_.id in ("list", "array", "map"):
                    lists.add(name)

    take(list(zip(relation.columns, relation.types, strict=True)), "t0", ())
    deep: list[str] = []
    while open_lists:
        followed = max(open_lists, key=lambda one: sum(likely(key) for key, _ in _fields(one[3])))
        here, way, _, inner = followed
        rest = [one for one in open_lists if one is not followed]
        columns |= {name: value for value, _, name, _ in rest}
        lists |= {name for _, _, name, _ in rest}
        open_lists.clear()
        deep.append(here)
        level = len(deep)
        rows.append(f"unnest({here}) AS u{level}(t{level})")
        take(_fields(inner), f"t{level}", way)
    return Flat(", ".join(rows), columns, lists, deep)


def _fields(type_: duckdb.sqltypes.DuckDBPyType) -> list[tuple[str, duckdb.sqltypes.DuckDBPyType]]:
    """What an object, or a list, is made of, by name."""
    return cast("list[tuple[str, duckdb.sqltypes.DuckDBPyType]]", type_.children)
