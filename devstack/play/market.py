"""The playground's log: a made-up market of a few hundred goods with names that a person can tell apart."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from devstack.market import DAY_MS, Market

MARKET = Market(queries=400, items=360, days=11, seed=11)
CLICKS = 24_000
NAME = "made-up-market"
_GOODS = {
    "food": "noodle soup,fried rice,dumplings,burger,salad bowl,pizza",
    "groceries": "apples,olive oil,oat milk,eggs,rice,tomatoes",
    "sweets": "cheesecake,ice cream,bubble tea,brownie,waffle,macarons",
    "flowers": "roses,tulips,orchid,sunflowers,lilies,bonsai",
    "medicine": "plasters,vitamin C,cough syrup,thermometer,eye drops,masks",
    "hotels": "hostel,city hotel,spa hotel,cabin,guest house,motel",
    "films": "comedy,thriller,documentary,western,cartoon,musical",
    "travel": "train ticket,boat tour,museum pass,bike hire,airport bus,ski pass",
    "weddings": "cake for fifty,band,photographer,invitations,rings,veil",
}
_MAKERS = ["North", "Old Town", "Harbour", "Green", "Golden", "Little", "Royal", "Corner", "Sunny", "Blue"]
_CITIES = ["Lyon", "Oslo", "Porto", "Turin", "Ghent"]
CARD = f"""\
# Made up by a law of clicks (devstack/market.py): no shop, no person.
name = "{NAME}"
title = "A made-up market"
folder = "FOLDER"
window_days = 10
history = 30

[clicks]
path = "clicks.parquet"
query = "query_id"
item = "item_id"
time = "time"
time_unit = "ms"

[query]
table = {{ path = "queries.parquet", id = "query_id" }}
half_lives = ["1h", "24h"]

[query.features]
city = {{ column = "city", kind = "category" }}

[item]
table = {{ path = "items.parquet", id = "item_id" }}
half_lives = ["1h", "6h", "24h"]
category = "category"
created = "opened"

[item.features]
title = {{ column = "title", kind = "text" }}
category = {{ column = "category", kind = "category" }}
opened = {{ column = "opened", kind = "time" }}

[training]
negatives = 4

[training.model]
epochs = 12
memory = {{ dim = 16, second = 32, hidden = 32 }}
closed_form = {{ weight = 0 }}
tower = {{ embedding_dim = 16, hidden = [64], output_dim = 16 }}
"""


def write(folder: Path) -> Path:
    """Write the log and its card; returns the card. The same bytes' worth of rows everywhere."""
    folder.mkdir(parents=True, exist_ok=True)
    queries, items, times = MARKET.clicks(np.arange(CLICKS))
    clicks = {"query_id": _ids("shopper", queries), "item_id": _ids("item", items), "time": times}
    pq.write_table(pa.table(clicks), folder / "clicks.parquet")
    everyone, goods = np.arange(MARKET.queries), np.arange(MARKET.items)
    cities = [_CITIES[number * 7 % 5] for number in everyone.tolist()]
    pq.write_table(pa.table({"query_id": _ids("shopper", everyone), "city": cities}), folder / "queries.parquet")
    categories = list(_GOODS)
    catalogue = {
        "item_id": _ids("item", goods),
        "title": [_title(number, categories[code]) for number, code in enumerate(MARKET.category[goods].tolist())],
        "category": [categories[code] for code in MARKET.category[goods].tolist()],
        "opened": MARKET.start_ms + (MARKET.opened[goods] * DAY_MS).astype(np.int64),
    }
    pq.write_table(pa.table(catalogue), folder / "items.parquet")
    card = folder / "card.toml"
    card.write_text(CARD.replace("FOLDER", str(folder.absolute())))
    return card


def _ids(kind: str, numbers: np.ndarray) -> list[str]:
    return [f"{kind}-{number}" for number in numbers.tolist()]


def _title(number: int, category: str) -> str:
    goods = _GOODS[category].split(",")
    return f"{_MAKERS[number // len(goods) % len(_MAKERS)]} {goods[number % len(goods)]}"
