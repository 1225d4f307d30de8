"""Three logs as people have them, each with its card of ten lines."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

GROUPS = 3  # people and goods come in kinds, so that there is something to learn


def taste(rows: int, people: int = 30, goods: int = 40, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Who takes what: people take goods of their own kind."""
    rng = np.random.default_rng(seed)
    who = rng.integers(0, people, rows)
    return who, rng.integers(0, goods // GROUPS, rows) * GROUPS + who % GROUPS


def purchases(folder: Path) -> str:
    """A till's log: one Parquet file, days as numbers, many purchases at the same "time", whole-number ids."""
    who, what = taste(900)
    day = np.sort(np.random.default_rng(1).integers(17_000, 17_012, 900))
    pq.write_table(pa.table({"customer": who, "sku": what, "day": day, "euros": what * 1.5}), folder / "till.parquet")
    return """
name = "till"
title = "Purchases by day"
folder = "log"
[clicks]
path = "till.parquet"
query = "customer"
item = "sku"
time = "day"
time_unit = "d"
"""


def ratings(folder: Path) -> str:
    """Ratings in text, quoted where it must be, with categories and a price in the item table, some of them missing."""
    who, what = taste(600)
    second = 1_500_000_000 + np.sort(np.random.default_rng(2).integers(0, 20 * 86_400, 600))
    rows = [f"r{u};b{i};{4 + u % 2};{t}" for u, i, t in zip(who, what, second, strict=True)]
    (folder / "ratings.csv").write_text("\n".join(["reader;book;stars;at", *rows]))
    kinds = ("crime|novel", "travel", "")
    books = [f'b{i};"Book; the {i}th";{kinds[i % GROUPS]};{"" if i % 7 == 0 else 5 + i}' for i in range(36)]
    (folder / "books.csv").write_text("\n".join(["book;title;genres;price", *books]))
    return """
name = "books"
title = "Ratings of books"
folder = "log"
protocol = "last-out"
clicks = { path = "ratings.csv", separator = ";", query = "reader", item = "book", time = "at" }
[item]
table = { path = "books.csv", separator = ";", id = "book" }
category = "genres"
features.genres = { column = "genres", kind = "categories", separator = "|" }
features.price = { column = "price", kind = "number" }
"""


def several_files(folder: Path) -> str:
    """Clicks in a file a day, text and Parquet side by side, milliseconds; the files are not in order of time."""
    who, what = taste(800)
    at = 1_700_000_000_000 + np.sort(np.random.default_rng(3).integers(0, 4 * 86_400_000, 800))
    for name, part in (("b-first", slice(0, 300)), ("a-then", slice(300, 800))):
        rows = [f"{u},{i},{t}" for u, i, t in zip(who[part], what[part], at[part], strict=True)]
        (folder / f"{name}.csv").write_text("\n".join(["visitor,page,ms", *rows]))
    table = pa.table({"visitor": pa.array([7, 8], pa.int32()), "page": ["1", "2"], "ms": [float(at[0]), float(at[1])]})
    pq.write_table(table, folder / "c-late.parquet")
    return """
name = "pages"
title = "Clicks in several files"
folder = "log"
clicks = { path = ["*.csv", "*.parquet"], query = "visitor", item = "page", time = "ms", time_unit = "ms" }
"""


LOGS = {"till": (purchases, 900), "books": (ratings, 600), "pages": (several_files, 802)}


def bring(folder: Path, name: str) -> Path:
    (folder / "log").mkdir()
    card = folder / f"{name}.toml"
    card.write_text(LOGS[name][0](folder / "log"))
    return card
