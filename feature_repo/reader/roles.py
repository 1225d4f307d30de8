"""Which column of a file is a click's query, item, time, type and value: guessed by names and values.

A name counts by its words: ``Paid at`` holds no ``aid``. Of several candidates the fuller, the more telling and the
more id-like one is taken; values decide where names do not.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import duckdb

from feature_repo.card import Files
from feature_repo.reader.nested import Flat
from feature_repo.reader.tables import one

WORDS = 200  # a text column of fewer different values is a category
FEW = 10  # different values: fewer are likely a flag
ENOUGH = 30  # rows tell whether two columns go together
MOST = 0.95  # of the rows have a time in a column of times
WIDE = 20  # columns of numbers that no name tells apart: a table of queries by items
GRADES = 20  # a column of numbers with no more different values may be a rating
Units = dict[str, tuple[str, str]]

_WORDS: dict[str, tuple[str, ...]] = {
    "query": (
        r"user|customer|member|reader|account|person|reviewer|uid|kunde|nutzer|utilisateur|usuario|utente|client",
        r"e_?mail|household|employee|buyer|player|viewer|listener|subscriber|patient|student|guest|login|who\b",
        r"visitor|besucher|cookie|device|anonymous|distinct_?id|visid|idvisitor|fingerprint",
        r"session|query|sid\b",
        r"ip\b|ip_|remote|host\b",
    ),
    "item": (
        r"item|product|article|sku|asin|isbn|ean\b|gtin|upc\b|book|movie|film|track|song|video|news|artid|aid\b|business|"
        r"recipe|course|job|listing|hotel|restaurant|stock_?code|artikel|produkt|produit|artículo|articulo|prodotto",
        r"game|ur[il]\b|link|path\b|page|document|doc\b|content|post\b|app\b|artist|album|channel|offer|venue|place|title|"
        r"goods|object|target|entity|reference$",
    ),
    "event_type": (r"event_?(type|name)|event$|behaviou?r|action|interaction|type$",),
    "value": (
        r"rating|score|stars|overall",
        r"price|amount|value|quantity|duration|hours|plays|ms_played|preis|menge|prix|precio",
    ),
}  # fmt: skip
_ANYWHERE = {
    "query": r"用户|ユーザ",
    "item": r"商品",
    "time": r"time|date|_at$|^at$|^ts$|ts_|_ts$|stamp|created|when|day|datum|zeit|fecha|hora|heure|epoch|millis|时间",
}
_ID = r"(?<![^\W_])(id|ids|uid|uuid|guid|ur[il]|sku|asin|isbn|ean|key|code|no|nr|number|nummer|hash)$|[a-z]id$"
_DESCRIBES = (
    r"(?<![^\W_])(name|title|categor\w*|type|count|price|amount|quantity|description|brand|text|agent|length|age|gender|"
    r"country|city|language|referr?er|status)$"
)
_FLAG = r"(?<![^\W_])(click(s|ed)?|label|purchased?|bought|convert(ed)?|conversion|target)$"
_NO_AND_YES = (["0", "1"], ["0.0", "1.0"], ["false", "true"], ["f", "t"], ["n", "y"], ["no", "yes"])
HOUR = r"[01]?\d|2[0-3]"
_HOURLY = r"(^|_)(hour|hr|hh|stunde|heure|hora)s?(_|$)"
CLOCK = r"\d{1,2}:\d{2}(:\d{2}(\.\d+)?)?( ?[AaPp]\.?[Mm]\.?)?"


@dataclass(frozen=True)
class Looked:
    """A file's columns: how many different values a sample of each has, how many rows have one, and a few of them.

    more: files that hold the same · numbers: columns that hold nothing else · fractions: of these the ones that are not
    all whole · lists: those that hold several values · sample: a table of some rows, with the columns ``c0``, ``c1``, …
    · flat: how nested rows become flat ones.
    """

    path: Path
    spec: Files
    different: dict[str, int]
    filled: dict[str, int]
    values: dict[str, list[str]]
    rows: int
    numbers: set[str]
    fractions: set[str]
    lists: set[str]
    sample: str = ""
    flat: Flat | None = None
    more: list[Path] = field(default_factory=list)

    @property
    def is_nameless(self) -> bool:
        """Whether its columns have no names of their own."""
        return bool(self.spec.header) and "column_1" in self.different

    def is_key(self, name: str) -> bool:
        """Whether a column has a value of its own in each row."""
        return self.different[name] == self.rows > 1 and name not in self.lists | self.fractions


def is_id(name: str) -> bool:
    """Whether a name says that its values are ids."""
    return re.search(_ID, _snake(name)) is not None


def is_id_of_else(name: str) -> bool:
    """Whether a name says that its values are ids of what is neither a query nor an item: of a category, a shop."""
    return is_id(name) and re.sub(rf"({_ID})|^_", "", _snake(name)) != "" and not (
        named(name, "query") or named(name, "item")
    )  # fmt: skip


def is_item(name: str) -> bool:
    return item_rank(name) < len(_WORDS["item"])


def item_rank(name: str) -> int:
    return _rank(name, "item")


def roles(
    sql: duckdb.DuckDBPyConnection, table: Looked, times: dict[str, Units], others: Sequence[Looked]
) -> dict[str, str]:
    """Which column is what; the query and the item are missing where no column can be that.

    Args:
        times: By column that could hold times, the units that fit.
        others: Further files: the item's values may be the key of one.
    """
    order = list(table.different)
    found: dict[str, str] = {}

    def take(role: str, candidates: Iterable[str]) -> None:
        if role not in found and (name := next((n for n in candidates if n not in found.values()), None)) is not None:
            found[role] = name

    def tied(name: str, to: str) -> bool:
        return to in found and _goes_with(sql, table, name, found[to])

    if crosstab(table):
        return {}
    # A number that is an id may look like seconds.
    times = {name: fits for name, fits in times.items() if named(name, "time") or not is_id(name)}
    most = max((table.different[name] for name in times), default=0)
    take("time", sorted(times, key=lambda name: (
        not named(name, "time"), name in table.numbers and not named(name, "time"),
        table.filled[name] < MOST * table.rows, table.different[name] < 0.8 * most, order.index(name),
    )))  # fmt: skip
    sure_times = {name for name, units in times.items() if name not in table.numbers or named(name, "time")}
    ids = [
        name
        for name in order
        if name not in sure_times | table.lists and _tells_apart(table, name) and not _is_clock(table, name)
        and not is_packed(table, name) and (name not in table.fractions or is_id(name))
    ]  # fmt: skip

    def by_name(role: str, names: list[str]) -> list[str]:
        return sorted(
            (name for name in names if _rank(name, role) < len(_WORDS[role])),
            key=lambda name: (
                _is_rare(table, name), is_unique(table, name), role == "item" and tied(name, "query"),
                _describes(name), _rank(name, role), not is_id(name),
                order.index(name),
            ),
        )  # fmt: skip

    take("query", [name for name in by_name("query", ids) if not is_item(name) and not _describes(name)])
    # An order's lines point to the orders, and yet it is the products that are clicked.
    called_item = any(_rank(name, "item") == 0 and is_id(name) and not _describes(name) for name in ids)
    pointers = [name for name in ids if _points(table, name, others) and (is_item(name) or not called_item)]
    take("item", sorted(pointers, key=lambda name: (
        not is_item(name), tied(name, "query"), -_points(table, name, others), -order.index(name),
    )))  # fmt: skip
    take("item", [name for name in by_name("item", ids) if not _describes(name)])
    take("item", [name for name in order if name in table.lists and is_item_list(name)])
    take("item", by_name("item", ids))
    # Ids come again and again; a log has the query before the item more often than not.
    likely = sorted(
        (name for name in ids if not named(name, "value") and not named(name, "event_type")),
        key=lambda name: (
            is_unique(table, name), table.filled[name] < MOST * table.rows, table.different[name] < FEW,
            order.index(name),
        ),
    )  # fmt: skip
    take("query", sorted(likely, key=lambda name: tied(name, "item")))
    again = [name for name in likely if table.rows < ENOUGH or not is_unique(table, name)]
    take("item", sorted(again, key=lambda name: tied(name, "query")))
    kinds = [name for name in order if named(name, "event_type") and 0 < table.different[name] <= WORDS]
    take("event_type", [name for name in kinds if name not in table.lists | table.numbers])
    amounts = [name for name in order if name in table.numbers and not is_id(name) and table.different[name] > 1]
    take("value", sorted((name for name in amounts if named(name, "value")), key=lambda name: _rank(name, "value")))
    if table.is_nameless:
        take("value", [name for name in amounts if is_grade(table, name)])
    return {role: found[role] for role in ("query", "item", "time", "event_type", "value") if role in found}


def crosstab(table: Looked) -> set[str]:
    """The columns of a table that has a row a query and a column an item; empty where it is no such table."""
    items = [name for name in table.different if is_item(name)]
    wide = {name for name in table.numbers if not named(name, "query")}
    if 0 < len(items) < WIDE or any(named(name, "time") for name in table.different):
        return set()
    return wide if len(wide) >= max(WIDE, 0.9 * len(table.different)) else set()


def named_roles(found: dict[str, str]) -> tuple[bool, int]:
    """How sure it is that roles are those of a log: whether it has a time, and how many of query and item say so."""
    return "time" in found, sum(role in found and named(found[role], role) for role in ("query", "item"))


def is_grade(table: Looked, name: str) -> bool:
    """Whether a column of numbers may be a rating."""
    rated = table.is_nameless or _rank(name, "value") == 0
    return rated and 1 < table.different[name] <= GRADES


def flag_of_clicks(table: Looked) -> tuple[str, str, str] | None:
    """A column that says of what was shown whether it was clicked, with its values for no and for yes."""
    for name, values in table.values.items():
        pair = sorted(values, key=str.lower)
        if re.search(_FLAG, _snake(name)) and [value.lower() for value in pair] in _NO_AND_YES:
            return name, pair[0], pair[1]
    return None


def named(column: str, role: str) -> bool:
    if role == "time":
        return re.search(_ANYWHERE["time"], _snake(column)) is not None
    return _rank(column, role) < len(_WORDS[role])


def is_item_list(name: str) -> bool:
    """Whether a column of lists may hold a row's items."""
    return is_item(name) or re.search(r"basket|cart|purchases|clicks|history", _snake(name)) is not None


def clock_beside(table: Looked, date: str) -> str | None:
    """The column that has the time of the day, where another has only the date."""
    if any(re.search(r"\d:\d", value) for value in table.values[date]):
        return None
    return next((name for name in table.different if name != date and _is_clock(table, name)), None)


def is_packed(table: Looked, name: str) -> bool:
    """Whether a column's values are several ids in one text: ``N12-0 N7-1``, ``['a', 'b']``."""
    values = table.values[name]
    if values and all(re.fullmatch(r"\[.*\]", value) for value in values):
        return True
    word = r"[^\s,|;]*\d[^\s,|;]*"
    if not values or not all(re.fullmatch(rf"{word}([\s,|;]+{word})*", value) for value in values):
        return False
    counts = {len(re.split(r"[\s,|;]+", value)) for value in values}
    return len(counts) > 1 and max(counts) > 2


def _goes_with(sql: duckdb.DuckDBPyConnection, table: Looked, name: str, other: str) -> bool:
    """Whether one of two columns follows from the other, as a session's user does, or a user's address: a user has
    several items, and an item several users."""
    if table.rows < ENOUGH:
        return False
    order = list(table.different)
    one_, two = f"c{order.index(name)}", f"c{order.index(other)}"
    pairs, *each = one(
        sql, f"SELECT count(DISTINCT ({one_}, {two})), count(DISTINCT {one_}), count(DISTINCT {two}) "
        f"FROM {table.sample} WHERE {one_} IS NOT NULL AND {two} IS NOT NULL",
    )  # fmt: skip
    return pairs in each


def _points(table: Looked, name: str, others: Sequence[Looked]) -> float:
    """The share of another file's rows that a column's values point to; 0 if most of them are no key of a file."""
    values = set(table.values[name])
    keys = (set(other.values[key]) for other in others for key in other.different if other.is_key(key))
    shares = [len(values & key) / len(key) for key in keys if len(values & key) > len(values) / 2]
    return max(shares, default=0.0) if len(values) > 1 else 0.0


def _rank(name: str, role: str) -> int:
    """How telling a name is of a role, 0 the most; as many as there are grades: it says nothing."""
    grades = _WORDS[role]
    said = _snake(name)
    if role in _ANYWHERE and re.search(_ANYWHERE[role], said):
        return 0
    return next((n for n, words in enumerate(grades) if re.search(rf"(?<![^\W\d_])({words})", said)), len(grades))


def _snake(name: str) -> str:
    """``userId`` and ``User ID`` as ``user_id``."""
    return re.sub(r"[\s.:/-]+", "_", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower())


def _describes(name: str) -> bool:
    return re.search(_DESCRIBES, _snake(name)) is not None


def _tells_apart(table: Looked, name: str) -> bool:
    """Whether a column has several values, as far as its few rows can show that."""
    return table.different[name] > 1 or (0 < table.rows <= FEW and table.different[name] == 1)


def _is_rare(table: Looked, name: str) -> bool:
    return table.filled[name] < table.rows / 2


def is_unique(table: Looked, name: str) -> bool:
    """Whether hardly a value of a column comes again."""
    return table.different[name] > 0.99 * table.filled[name] > 0


def _is_clock(table: Looked, name: str) -> bool:
    """Whether a column has a time of the day, or its hour as a number."""
    shape = f"{CLOCK}|{HOUR}" if re.search(_HOURLY, _snake(name)) else CLOCK
    return bool(table.values[name]) and all(re.fullmatch(shape, value) for value in table.values[name])
