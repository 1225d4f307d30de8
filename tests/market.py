"""A small made-up market as log files and a dataset card: enough clicks for the whole loop in a minute."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv

FIRST_MS = 1_700_006_400_000  # 2023-11-15 00:00 UTC, which begins a day
DAYS = 5
CARD = """
name = "market"
title = "A made-up market"
folder = "market"
window_days = 3
history = 20

[clicks]
path = "clicks.csv"
query = "user"
item = "shop"
time = "at"
time_unit = "ms"

[query]
table = { path = "users.csv", id = "user" }
half_lives = ["1h", "24h"]

[query.features]
city = { column = "city", kind = "category" }
age = { column = "age", kind = "number" }

[item]
table = { path = "shops.csv", id = "shop" }
half_lives = ["1h", "6h", "24h"]
category = "kinds"
created = "opened"

[item.features]
name = { column = "name", kind = "text" }
kinds = { column = "kinds", kind = "categories" }
opened = { column = "opened", kind = "time" }
"""


def write_market(folder: Path, queries: int = 40, items: int = 150, clicks: int = 3_000, seed: int = 0) -> Path:
    """Write log files under ``folder/market`` and the card beside; returns the card's path.

    Queries prefer one kind of shop and click in bursts; a tenth of the shops open on later days; times have ties.
    """
    rng = np.random.default_rng(seed)
    files = folder / "market"
    files.mkdir(parents=True)
    kind = rng.integers(0, 3, items)
    opened = np.where(np.arange(items) % 10 == 9, FIRST_MS + rng.integers(0, DAYS * 86_400_000, items), FIRST_MS)
    taste = rng.integers(0, 3, queries)
    times = np.sort(FIRST_MS + 60_000 + rng.integers(0, DAYS * 86_400, clicks) * 1000 * 99 // 100)
    times[1::7] = times[0::7][: len(times[1::7])]  # some clicks at the same moment
    who = np.repeat(rng.integers(0, queries, clicks // 5 + 1), 5)[:clicks]
    what = np.empty(clicks, np.int64)
    for n in range(clicks):
        there = np.flatnonzero(opened <= times[n])
        weight = np.where(kind[there] == taste[who[n]], 10.0, 1.0) / (1 + there)
        what[n] = rng.choice(there, p=weight / weight.sum())
    names = ("food", "hotel", "film")
    tables = {
        "clicks": {"user": [f"u{k}" for k in who], "shop": [f"s{k}" for k in what], "at": times},
        "users": {
            "user": [f"u{k}" for k in range(queries)],
            "city": ["Lyon" if k % 2 else "Oslo" for k in range(queries)],
            "age": 20 + np.arange(queries) % 50,
        },
        "shops": {
            "shop": [f"s{k}" for k in range(items)],
            "name": [f"Shop {k}" for k in range(items)],
            "kinds": [f"{names[k]} all" for k in kind],
            "opened": opened,
        },
    }
    for name, columns in tables.items():
        pa.csv.write_csv(pa.table(columns), files / f"{name}.csv", pa.csv.WriteOptions(quoting_style="none"))
    card = folder / "market.toml"
    card.write_text(CARD)
    return card
