"""Write a made-up market: log files of any size, and the dataset card that ``dat nightly --data`` takes.

A file holds a fixed range of clicks and is written chunk by chunk, so that memory grows with the number of queries and
items, whatever the number of clicks.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from devstack.market import DAY_MS, SHARES, Market, uniform
from feature_repo.atomic import atomic_write

ROWS_A_FILE = 1_000_000
CHUNK = 100_000  # rows made and written at a time
CATEGORIES = ("food", "groceries", "sweets", "flowers", "medicine", "hotels", "films", "travel", "weddings")
CITIES = 20
CARD = """\
# A made-up market: {clicks:,} clicks asked for, {queries:,} queries, {items:,} items, {days} days, seed {seed}.
# The law that its clicks follow: devstack/market.py.
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


def generate(
    market: Market, clicks: int, out: Path, threads: int = 2, on_rows: Callable[[int], None] = lambda rows: None
) -> Path:
    """Write ``clicks/``, ``queries.parquet``, ``items.parquet`` and ``card.toml``; returns the card.

    Args:
        clicks: How many to ask the market for; a few are not made (see :meth:`Market.clicks`).
        on_rows: Told how many clicks have been asked for, as they are.

    The rows and their order depend on the market and the number alone.
    """
    market.prepare()
    with atomic_write(out / "clicks") as folder:
        folder.mkdir()

        def write(start: int) -> None:
            stop = min(start + ROWS_A_FILE, clicks)
            _write(market, _clicks, start, stop, folder / f"part-{start // ROWS_A_FILE:06d}.parquet")
            on_rows(stop - start)

        with ThreadPoolExecutor(threads, "generate") as pool:
            for _ in pool.map(write, range(0, clicks, ROWS_A_FILE)):
                pass
    for name, rows, make in (("queries", market.queries, _queries), ("items", market.items, _items)):
        with atomic_write(out / f"{name}.parquet") as file:
            _write(market, make, 0, rows, file)
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


def _write(market: Market, make: Callable[[Market, np.ndarray], pa.Table], start: int, stop: int, file: Path) -> None:
    """``make`` of a market and the numbers from ``start`` to ``stop``, chunk by chunk."""
    with pq.ParquetWriter(file, make(market, np.arange(0)).schema) as writer:
        for at in range(start, stop, CHUNK):
            writer.write_table(make(market, np.arange(at, min(at + CHUNK, stop))))


def _names(letter: str, numbers: np.ndarray) -> pa.Array:
    return pc.binary_join_element_wise(letter, pa.array(numbers).cast(pa.string()), "")


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
