"""Which unit a column's times are in: to refuse a wrong one with the right one, and to guess the first."""

from datetime import UTC, datetime

import duckdb

from feature_repo.card import UNITS
from feature_repo.limits import EARLIEST_MS
from feature_repo.reader import columns
from feature_repo.reader.tables import Column, one

_DATES = (
    "%m/%d/%Y", "%d/%m/%Y", "%d.%m.%Y", "%d-%m-%Y", "%m-%d-%Y", "%m/%d/%y", "%d/%m/%y", "%d.%m.%y", "%d-%b-%Y",
    "%d-%b-%y", "%d %b %Y", "%b %d, %Y", "%d %B %Y", "%B %d, %Y", "%b %d %Y", "%Y.%m.%d", "%Y-%m-%d", "%Y/%m/%d",
)  # fmt: skip
_CLOCKS = ("", "%H:%M:%S", "%H:%M", "%H", "%H:%M:%S.%f", "%I:%M:%S %p", "%I:%M %p", "%I:%M%p", "%I.%M.%S.%f %p")
FORMATS = (
    *(f"{day}{between}{clock}" for day in _DATES for clock in _CLOCKS for between in ((" ", ", ") if clock else ("",))),
    "%Y%m%d%H%M%S", "%Y%m%d%H%M", "%Y%m%d%H", "%y%m%d%H", "%Y%m%d",
)  # fmt: skip
"""Ways to write a moment that a card has to name, since several may fit."""
SURE = 0.9  # of the values have to be times for a unit to fit
MOSTLY = 0.5  # of those of a column that is called so


def fitting(
    sql: duckdb.DuckDBPyConnection, values: list[str], zone: str, until_ms: int, sure_of: float = SURE
) -> dict[str, tuple[str, str]]:
    """Units in which most of some values are times that can be, the likeliest first: ``{"ms": (first, last)}``.

    Of formats the one by which most are times, and then the shortest: days taken for months lie far apart.
    """
    said = [value for value in values if value]
    fits: dict[str, tuple[str, str]] = {}
    likely: dict[str, tuple[int, int]] = {}
    formats = [form for form in FORMATS if any(_is_of(value, form) for value in said[:5])]
    for unit in [unit for unit in UNITS if unit not in ("position", "order")] + formats:
        ms = columns.time_ms(Column("said", "VARCHAR"), unit, zone, [])
        inside, first, last = one(
            sql,
            f"SELECT count(*), min(ms), max(ms) FROM (SELECT {ms} AS ms FROM (SELECT unnest(?) AS said)) "
            f"WHERE ms BETWEEN {EARLIEST_MS} AND {until_ms}",
            [said],
        )
        if said and inside >= sure_of * len(said):
            fits[unit] = (moment(first), moment(last))
            likely[unit] = (-inside, last - first)
    sure = {unit: span for unit, span in fits.items() if unit in UNITS}
    return sure or {unit: fits[unit] for unit in sorted(fits, key=lambda unit: likely[unit])}


def zoneless(values: list[str], unit: str) -> bool:
    """Whether some values are times of a clock in a zone that they do not say."""
    first = {}
    for zone in ("UTC", "Asia/Tokyo"):
        with duckdb.connect() as sql:
            sql.execute(f"SET TimeZone = '{zone}'")
            ms = columns.time_ms(Column("said", "VARCHAR"), unit, zone, [])
            first[zone], of_a_clock = one(
                sql, f"SELECT min(ms), max(ms % 86_400_000) FROM (SELECT {ms} AS ms FROM (SELECT unnest(?) AS said))",
                [values],
            )  # fmt: skip
            if zone == "UTC" and not of_a_clock:
                return False
    return first["UTC"] != first["Asia/Tokyo"]


def _is_of(value: str, form: str) -> bool:
    try:
        datetime.strptime(value.strip(), form)
    except ValueError:
        return False
    return True


def advice(fits: dict[str, tuple[str, str]]) -> str:
    """What a card should say of its times."""
    if not fits:
        return ' No unit fits: if they are only an order, say time_unit = "position"; else compute the time with `sql`'
    options = [f'as time_unit = "{unit}" they would lie from {first} to {last}' for unit, (first, last) in fits.items()]
    return " But " + ", ".join(options)


def moment(ms: int) -> str:
    """A moment that may lie beyond what a calendar holds."""
    year = 1970 + ms / 31_556_952_000
    return f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%d}" if 1 <= year < 9999 else f"the year {year:,.0f}"
