"""JSON objects that hold others: the SELECT that makes a row of each of the innermost."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import duckdb
from duckdb.sqltypes import DuckDBPyType

from feature_repo.reader.tables import fields, quoted
from feature_repo.reader.text import literal

_GENERIC = ("id", "name", "value", "key", "type")
_SAMPLE = 100_000  # keys
_KEYS = 100  # of a map
_NO_RANK = 99


@dataclass(frozen=True)
class Flat:
    """Nested rows, flattened.

    called: what SQL calls them · rows: a FROM clause with a row an innermost object · columns: how each single value is
    written in SQL, by a name made of the keys on its way · lists: those that hold several values · deep: the lists that
    were unnested.
    """

    called: str
    rows: str
    columns: dict[str, str]
    lists: set[str]
    deep: list[str]


def flatten(
    sql: duckdb.DuckDBPyConnection, source: str, called: str, rank: Callable[[str], int] = lambda name: 0
) -> Flat:
    """Follow a relation's objects and lists of objects down to single values.

    Values that a map, or a list of keys and values, has under the commonest keys are single ones, too.

    Args:
        source: A FROM clause. called: The name that the result's ``rows`` have for it.
        rank: Of a key, 0 for what is looked for the most. Of several lists of a level that one is followed which has
            most of the best keys, or else the first; none if what is there already has a better one, as an item that
            has pictures.
    """
    relation = sql.sql(f"SELECT * FROM {source}")
    rows, columns, lists = [f"{quoted(called)} AS t0"], dict[str, str](), set[str]()
    open_lists: list[tuple[str, tuple[str, ...], str, DuckDBPyType]] = []

    def called_by(path: tuple[str, ...]) -> str:
        short = 2 if path[-1] in _GENERIC and len(path) > 1 else 1  # the shortest name that says something
        return next(n for k in range(short, len(path) + 2) if (n := "_".join(path[-k:])) not in columns)

    def commonest(keys: str) -> list[str]:
        found = sql.execute(
            f"SELECT key FROM (SELECT unnest({keys}) AS key FROM {', '.join(rows)} LIMIT {_SAMPLE}) "
            f"WHERE NOT regexp_matches(key, '^$|[0-9]') GROUP BY 1 ORDER BY count(*) DESC, 1 LIMIT {_KEYS}"
        )
        return [key for (key,) in found.fetchall()]

    def take(inside: list[tuple[str, DuckDBPyType]], value: str, way: tuple[str, ...]) -> None:
        for key, type_ in inside:
            here, path = f"{value}.{quoted(key)}", (*way, key)
            if type_.id == "struct":
                take(fields(type_), here, path)
            elif type_.id == "map" and _is_single(fields(type_)[1][1]) and str(fields(type_)[0][1]) == "VARCHAR":
                for each in commonest(f"map_keys({here})"):
                    columns[called_by((*path, each))] = f"{here}[{literal(each)}]"
            elif type_.id == "list" and (pair_value := _of_pair(fields(type_)[0][1])):
                for each in commonest(f"[pair.key FOR pair IN {here}]"):
                    value_of = f"[{pair_value} FOR pair IN {here} IF pair.key = {literal(each)}][1]"
                    columns[called_by((*path, each))] = value_of
            elif type_.id == "list" and fields(type_)[0][1].id == "struct":
                open_lists.append((here, path, called_by(path), fields(type_)[0][1]))
            else:
                columns[name := called_by(path)] = here
                if type_.id in ("list", "array", "map"):
                    lists.add(name)

    def best(names: Iterable[str]) -> tuple[int, int]:
        """The best rank of some keys, and less the more of them have it."""
        ranks = [rank(name) for name in names]
        first = min(ranks, default=_NO_RANK)
        return first, -ranks.count(first)

    take(list(zip(relation.columns, relation.types, strict=True)), "t0", ())
    deep: list[str] = []
    while open_lists:
        followed = min(open_lists, key=lambda one: best(key for key, _ in fields(one[3])))
        here, way, _, inner = followed
        is_as_good = best(key for key, _ in fields(inner))[0] <= best(columns)[0]
        rest = [one for one in open_lists if one is not followed or not is_as_good]
        columns |= {name: value for value, _, name, _ in rest}
        lists |= {name for _, _, name, _ in rest}
        open_lists.clear()
        if is_as_good:
            deep.append(here)
            level = len(deep)
            rows.append(f"unnest({here}) AS u{level}(t{level})")
            take(fields(inner), f"t{level}", way)
    return Flat(called, ", ".join(rows), columns, lists, deep)


def _is_single(type_: DuckDBPyType) -> bool:
    return type_.id not in ("struct", "list", "array", "map", "union")


def _of_pair(type_: DuckDBPyType) -> str | None:
    """Of a pair of a key and a value how the value is written, such as Google Analytics' ``event_params`` has."""
    inner = dict(fields(type_)) if type_.id == "struct" else {}
    if inner.keys() != {"key", "value"} or str(inner["key"]) != "VARCHAR":
        return None
    value = inner["value"]
    if _is_single(value):
        return "pair.value"
    if value.id != "struct" or not all(_is_single(child) for _, child in fields(value)):
        return None
    # One of them has the value, by its type.
    return f"coalesce({', '.join(f'pair.value.{quoted(name)}::VARCHAR' for name, _ in fields(value))})"
