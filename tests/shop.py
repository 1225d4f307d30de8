"""A shop's log as the documents' examples name its files: what their cards and commands read."""

import gzip
import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from tests.own_logs import taste

FIRST = datetime(2025, 11, 3, tzinfo=UTC).timestamp()
DEPARTMENTS = ("books", "games", "toys")


def write_shop(folder: Path, clicks: int = 1_500, days: int = 12) -> None:
    """Orders and products, the same below ``log/``, typed events and sessions; people buy of their own department."""
    who, what = taste(clicks, people=60, goods=150)
    seconds = FIRST + np.sort(np.random.default_rng(1).integers(0, 86_400 * days, clicks))
    moments = [datetime.fromtimestamp(second, UTC).isoformat() for second in seconds.tolist()]
    orders = [f"c{u},sku-{i},{at}" for u, i, at in zip(who, what, moments, strict=True)]
    products = [f"sku-{k},Thing {k},{DEPARTMENTS[k % 3]},{k}.5,{k}.5,2025-0{1 + k % 9}-01" for k in range(150)]
    kinds = ("buy", "view", "dismiss")
    events = [
        f"{u},{i},{s:.0f},{kinds[i % 3]},{1 + i % 5}" for u, i, s in zip(who, what, seconds.tolist(), strict=True)
    ]
    sessions = [
        {"session": f"s{u}", "events": [{"aid": int(i), "ts": round(1000 * s), "type": "clicks"}]}
        for u, i, s in zip(who, what, seconds.tolist(), strict=True)
    ]
    (folder / "log").mkdir()
    files = {
        "orders.csv": ["customer,sku,ordered_at", *orders],
        "log/clicks-1.csv": ["customer,sku,at", *orders],
        "products.csv": ["sku,title,dept,eur,price.eur,listed", *products],
        "log/products.csv": ["sku,title,dept,eur,price.eur,listed", *products],
        "events.csv": ["query,item,time,what,stars", *events],
    }
    for name, lines in files.items():
        (folder / name).write_text("\n".join(lines) + "\n")
    with gzip.open(folder / "sessions.jsonl.gz", "wt") as out:
        out.writelines(json.dumps(session) + "\n" for session in sessions)
