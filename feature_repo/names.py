"""Feature names that Feast, Spark, DuckDB and our own tables can all hold, made from whatever a card calls them."""

import re
from collections.abc import Iterable


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


OWN = _words(
    "a candidates clicks count counters created_timestamp date embedding event_id event_time event_timestamp "
    "first folded history id item_id known last_click n offset part partition query_id row_id since tie until "
    "update_count"
)
"""Columns that stand beside the features in one of the system's tables."""
SQL = _words(
    "all analyse analyze and anti any array as asc asof asymmetric at authorization between binary both by case "
    "cast check collate collation column concurrently constraint create cross current default deferrable desc "
    "describe distinct do else end except exists false fetch filter for foreign freeze from full generated glob "
    "grant group having ilike in initially inner insert intersect into is isnull join key lambda lateral leading "
    "left like limit map minus natural not notnull null on only or order outer overlaps pivot pivot_longer "
    "pivot_wider placing position "
    "primary qualify range references returning right rows select semi set show similar some struct summarize "
    "symmetric table tablesample then time timestamp to trailing true try_cast union unique unpivot update user "
    "using variadic verbose view when where window with within"
)
"""Words that some SQL engine does not take as a column's name unless it is quoted."""


def safe_names(names: Iterable[str]) -> dict[str, str]:
    """The columns that hold features of some names: the names themselves wherever that works everywhere.

    Other characters than letters, digits and ``_`` become ``_``; a word that is taken gets a ``_`` behind it; of names
    that would be one (engines do not tell capitals) the later gets a number.
    """
    columns: dict[str, str] = {}
    used: set[str] = set()
    for name in names:
        column = re.sub(r"\W", "_", name, flags=re.ASCII) or "_"
        if not re.match(r"[A-Za-z]", column):
            column = f"f{'' if column.startswith('_') else '_'}{column}"
        if column.lower() in OWN | SQL:
            column += "_"
        # Two underscores divide a view's name from a feature's.
        column = re.sub(r"__+", "_", column)
        number, base = 2, column
        while column.lower() in used:
            column, number = f"{base.rstrip('_')}_{number}", number + 1
        used.add(column.lower())
        columns[name] = column
    return columns
