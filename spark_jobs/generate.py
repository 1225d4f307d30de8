"""Write a made-up market with Spark: log files of any size, and the dataset card that ``dat nightly --data`` takes."""

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession

from spark_jobs.market import DAY_MS, SHARES, Market, uniform
from spark_jobs.tables import replace

ROWS_A_FILE = 1_000_000  # fixed, so that the files do not depend on the cores
CATEGORIES = ("food", "groceries", "sweets", "flowers", "medicine", "hotels", "films", "travel", "weddings")
CITIES = 20
CARD = """\
# A made-up market: {clicks:,} clicks asked for, {queries:,} queries, {items:,} items, {days} days, seed {seed}.
# The law that its clicks follow: spark_jobs/market.py.
name = "{name}"
title = "A made-up market"
folder = "{folder}"
window_days = {window_days}
history = 50

[clicks]
path = "clicks/*.parquet"
query = "query_id"
item = "item_id"
time = "time"
time_unit = "ms"

[query]
table = {{ path = "queries.parquet", id = "query_id" }}
half_lives = ["1h", "24h"]

[query.features]
city = {{ column = "city", kind = "category" }}
segment = {{ column = "segment", kind = "category" }}

[item]
table = {{ path = "items.parquet", id = "item_id" }}
half_lives = ["1h", "6h", "24h"]
category = "category"
created = "opened"

[item.features]
category = {{ column = "category", kind = "category" }}
price = {{ column = "price", kind = "number" }}
opened = {{ column = "opened", kind = "time" }}
"""


def generate(spark: SparkSession, market: Market, clicks: int, out: Path) -> Path:
    """Write ``clicks/``, ``queries.parquet``, ``items.parquet`` and ``card.toml``; returns the card.

    Args:
        clicks: How many to ask the market for; a few are not made (see :meth:`Market.clicks`).

    The rows and their order depend on the market and the number alone, not on how many tasks Spark runs at a time.
    """
    tables = {
        "clicks": (clicks, _clicks, "query_id string, item_id string, time long"),
        "queries.parquet": (market.queries, _queries, "query_id string, city string, segment string"),
        "items.parquet": (market.items, _items, "item_id string, category string, price float, opened long"),
    }
    for name, (rows, make, schema) in tables.items():
        table = _rows(spark, market, rows, make, schema)
        replace(out / name, lambda folder, table=table: table.write.parquet(str(folder)))
    card = out / "card.toml"
    sizes = {"clicks": clicks, "queries": market.queries, "items": market.items, "days": market.days}
    card.write_text(
        CARD.format(
            name=out.name,
            folder=out.absolute(),
            seed=market.seed,
            window_days=max(1, min(10, market.days - 1)),
            **sizes,
        )
    )
    return card


def _rows(spark: SparkSession, market: Market, rows: int, make, schema: str) -> DataFrame:
    """``make`` of a market and the numbers 0 … rows−1, file by file."""

    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            yield from make(_kept(market), batch["id"].to_numpy()).to_batches()

    files = -(-rows // ROWS_A_FILE)
    return spark.range(0, rows, 1, files).mapInArrow(run, schema)


@lru_cache(maxsize=1)
def _kept(market: Market) -> Market:
    """One market a Python worker, which keeps the tables that it derives."""
    return market


def _names(letter: str, numbers: np.ndarray) -> pa.Array:
    return pa.array(np.char.add(letter, numbers.astype(str)), pa.string())


def _clicks(market: Market, numbers: np.ndarray) -> pa.Table:
    queries, items, times = market.clicks(numbers)
    return pa.table({"query_id": _names("q", queries), "item_id": _names("i", items), "time": times})


def _queries(market: Market, numbers: np.ndarray) -> pa.Table:
    """City says nothing; the segment names the query's first category in six of ten cases, any category else."""
    first, _ = market.tastes(numbers)
    anything = (uniform(market.seed, 31, numbers) * len(SHARES)).astype(np.int64)
    segment = np.where(uniform(market.seed, 30, numbers) < 0.6, first, anything)
    city = (uniform(market.seed, 32, numbers) ** 2 * CITIES).astype(np.int64)
    return pa.table(
        {
            "query_id": _names("q", numbers),
            "city": _names("city ", city),
            "segment": pa.array(CATEGORIES, pa.string()).take(pa.array(segment)),
        }
    )


def _items(market: Market, numbers: np.ndarray) -> pa.Table:
    """Prices differ by category and, within one, by a factor of two or so."""
    category = market.category[numbers]
    price = 5.0 * 1.6**category * np.exp(uniform(market.seed, 33, numbers) - 0.5)
    return pa.table(
        {
            "item_id": _names("i", numbers),
            "category": pa.array(CATEGORIES, pa.string()).take(pa.array(category)),
            "price": pa.array(price.astype(np.float32)),
            "opened": market.start_ms + (market.opened[numbers] * DAY_MS).astype(np.int64),
        }
    )
