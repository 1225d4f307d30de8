"""What clicks, features and training sets must be like, as pandera schemas; a bad night stops before it trains.

Rows are checked where they lie: pandera's schemas run as DuckDB queries over the Parquet files, so that nothing but
counts and examples comes into memory. What days must be like as a whole is checked on a row a day.
"""

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

import ibis
import pandas as pd
import pandera.ibis
import pandera.pandas
from pandera.errors import SchemaErrors
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from feature_repo.card import DatasetCard, Side
from feature_repo.place import Place
from feature_repo.reader.report import BY_CHOICE, ReadReport
from feature_repo.table import dataset, whole
from model.settings.night import Rules
from model.windows import Window

EXAMPLES = 3
RowRule = Callable[[ibis.Table], ibis.Value]
RowRules = dict[str, RowRule]
"""What a rule says → the column of a table that tells for each row whether it holds."""


class BadNight(RuntimeError):
    """Data that breaks a rule. The message says which rule, how many rows, and shows up to three of them."""


def _refuse(what: str, rule: str, rows: int, examples: pd.DataFrame) -> NoReturn:
    shown = "; ".join(str(row) for row in examples.head(EXAMPLES).to_dict("records"))
    raise BadNight(f"the {what} fail validation, and nothing was trained: {rule}. {rows:,} rows fail, such as {shown}")


def connect(memory: str = "1GB") -> ibis.BaseBackend:
    """A DuckDB that keeps to so much memory and puts the rest on disk."""
    return ibis.duckdb.connect(memory_limit=memory, preserve_insertion_order=False)


def _all(rows: ibis.Table, holds: Callable[[ibis.Table], ibis.Value]) -> ibis.Value:
    """Whether a rule holds in every row, of which there may be none; where it cannot be told it does not."""
    return rows.aggregate(all=holds(rows).fill_null(False).all().fill_null(True)).all.as_scalar()


def check_rows(what: str, files: Iterable[Place], rules: RowRules) -> None:
    """Hold every row of some Parquet files against the rules.

    Raises:
        BadNight: a row breaks one.
    """
    backend = connect()
    try:
        backend.con.register("checked", dataset(sorted(files)))
        rows = backend.table("checked")
        # A rule gives one truth for all rows: pandera would bring every row that fails into memory.
        checks = [
            pandera.Check(lambda data, holds=holds: _all(data.table, holds), name=rule) for rule, holds in rules.items()
        ]
        schema = pandera.ibis.DataFrameSchema(checks=checks)
        try:
            schema.validate(rows, lazy=True)
        except SchemaErrors as found:
            rule = found.schema_errors[0].check.name
            bad = rows.filter(~rules[rule](rows).fill_null(False))
            _refuse(what, rule, int(bad.count().execute()), bad.limit(EXAMPLES).execute())
    finally:
        backend.disconnect()


def check_frame(what: str, frame: pd.DataFrame, rules: dict[str, tuple[str, Callable[[pd.Series], pd.Series]]]) -> None:
    """Hold a small frame against rules: what each says → the column it is about, and which values are good.

    Raises:
        BadNight: a row breaks one.
    """
    columns: dict[str, list] = {}
    for rule, (column, holds) in rules.items():
        columns.setdefault(column, []).append(pandera.Check(holds, name=rule))
    schema = pandera.pandas.DataFrameSchema(
        {name: pandera.pandas.Column(checks=checks) for name, checks in columns.items()}
    )
    try:
        schema.validate(frame, lazy=True)
    except SchemaErrors as found:
        rule = found.schema_errors[0].check.name
        column, holds = rules[rule]
        bad = frame[~holds(frame[column])]
        _refuse(what, rule, len(bad), bad)


def check_days(clicks: DataFrame, window: Window, card: DatasetCard, rules: Rules) -> None:
    """Hold the window's days, as wholes, against the thresholds: none is missing, none is of one item alone.

    Days before the first click ever are not missed; any later one of the window is.
    """
    number = F.floor((F.col("event_time") - window.start) / card.day_ms).alias("number")
    inside = clicks.where(F.col("event_time").between(window.start, window.cut - 1))
    counted = inside.groupBy(number, "item_id").count().groupBy("number")
    summed = counted.agg(F.sum("count").alias("clicks"), F.max("count").alias("most"))
    found = pd.DataFrame(summed.toPandas()).set_index("number")
    earlier = clicks.where(F.col("event_time") < window.start).limit(1).count() > 0
    first = 0 if earlier or found.empty else int(found.index.min())
    days = found.reindex(range(first, -((window.start - window.cut) // card.day_ms))).fillna(0)
    days["day"] = [
        f"{datetime.fromtimestamp((window.start + n * card.day_ms) / 1000, UTC):%Y-%m-%d}" for n in days.index
    ]
    days["largest_item"] = (days.most / days.clicks).fillna(0.0)
    least = rules.min_day * days.clicks.mean()
    check_frame("days", days[["day", "clicks", "largest_item"]], {
        f"a day has at least {rules.min_day:.0%} of the clicks of the window's mean day ({least:,.0f})":
            ("clicks", lambda clicks: clicks >= least),
        f"no item has more than {rules.max_item_share:.0%} of a day's clicks":
            ("largest_item", lambda share: share <= rules.max_item_share),
    })  # fmt: skip


def check_log(report: ReadReport, rules: Rules) -> None:
    """A log of which too many rows are damaged (no item, a time that is none, a line that is cut) is refused."""
    if report.invalid > rules.max_invalid * report.rows_read:
        damaged = ", ".join(f"{n:,} {reason}" for reason, n in report.dropped.items() if reason not in BY_CHOICE)
        raise BadNight(
            f"{report.invalid:,} of the log's {report.rows_read:,} rows are damaged ({damaged}); at most "
            f"{rules.max_invalid:.1%} may be (night.rules.max_invalid), so nothing is trained. See `dat data check`"
        )


def check_features(offline: Place, card: DatasetCard) -> None:
    """Hold the histories that the night has written against what counters and the card's features can be."""
    for side_name in ("query", "item"):
        side: Side = getattr(card, side_name)
        key = f"{side_name}_id"
        width = len(side.half_lives_ms)
        rules: RowRules = {
            f"a row has a {key}": _has(key),
            "clicks are counted from 1": lambda t: t.clicks >= 1,
            f"there are {width} counters, finite and not negative": _counters(width),
            "a row is known from its event's time on": lambda t: t.created_timestamp == t.event_timestamp,
        }
        check_rows(f"{side_name} activity features", _written(offline, f"{side_name}_activity"), rules)
        rules = {f"a row has a {key}": _has(key)}
        for name, field in side.features.items():
            if field.kind == "number":
                rules[f"{name} is a finite number, or unknown"] = _finite(name)
        check_rows(f"{side_name} profiles", _written(offline, f"{side_name}_profile"), rules)


def _written(offline: Place, view: str) -> Iterable[Place]:
    return whole(offline / view / "part=all").glob("*.parquet")


def _has(column: str) -> RowRule:
    return lambda t: t[column].notnull()


def _finite(column: str) -> RowRule:
    return lambda t: t[column].isnull() | ~(t[column].isnan() | t[column].isinf())


def _counters(width: int) -> RowRule:
    wrong = lambda x: x.isnull() | x.isnan() | x.isinf() | (x < 0)  # noqa: E731
    return lambda t: (t.counters.length() == width) & (t.counters.filter(wrong).length() == 0)


def check_known(clicks: DataFrame, items: DataFrame, card: DatasetCard, rules: Rules) -> None:
    """Where the card names a catalogue, most clicks must be on items that it has: else its ids are not the log's."""
    if card.item.table is None:
        return
    by_item = clicks.groupBy("item_id").count()
    total = by_item.agg(F.sum("count")).collect()[0][0] or 0
    missing = by_item.join(items.select("item_id"), "item_id", "anti")
    unknown = missing.agg(F.sum("count")).collect()[0][0] or 0
    if total - unknown < rules.min_known_items * total:
        rule = f"at least {rules.min_known_items:.0%} of the clicks are on items that {card.item.table.path} has"
        _refuse("clicks", rule, unknown, missing.orderBy(F.desc("count"), "item_id").limit(EXAMPLES).toPandas())


def check_set(folder: Path, window: Window, negatives: int) -> None:
    """Hold a set's clicks against what the trainer relies on, above all that no negative is from the future."""
    rules: RowRules = {
        "a click lies in the window": lambda t: t.event_time.between(window.start, window.cut - 1),
        "a click has a query and an item of the set": lambda t: (t.query >= 0) & (t.item >= 0),
        f"a click has {negatives} negatives": lambda t: t.negatives.length() == negatives,
    }
    check_rows("training clicks", (folder / "clicks").rglob("*.parquet"), rules)
    check_rows("items", (folder / "items").glob("*.parquet"), {
        "an item exists before the cut": lambda t: t.since < window.cut,
    })  # fmt: skip


def check_card(card: dict, dataset: DatasetCard, rules: Rules) -> None:
    """Hold a training set as a whole against the thresholds: known items, and drift from the last set."""
    frame = pd.DataFrame([{"rows": card["rows"], "drift": card.get("category_drift", 0.0)}])
    asked = {
        "there is at least one row": ("rows", lambda rows: rows > 0),
        f"the categories' shares are within {rules.max_drift} (stability index) of the last set's": (
            "drift", lambda drift: drift <= rules.max_drift),
    }  # fmt: skip
    check_frame("training set", frame, asked)
