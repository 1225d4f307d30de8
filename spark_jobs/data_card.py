"""The data card of a training set: what is in it, how uneven it is, and how far it has moved since the last one."""

from pathlib import Path

import duckdb
import numpy as np

from feature_repo.card import DatasetCard, Field_
from training.training_set import PROFILE


def gini(counts: np.ndarray) -> float:
    """How uneven counts are: 0 where all are equal, towards 1 where one has all."""
    counts = np.sort(counts)
    size, total = len(counts), counts.sum()
    if not total:
        return 0.0
    return float((2 * np.arange(1, size + 1) - size - 1) @ counts / (size * total))


def stability_index(now: dict[str, int], before: dict[str, int]) -> float:
    """The population stability index of two counted distributions: ``Σ (p − q) ln(p / q)``.

    By custom below 0.1 nothing has moved, and above 0.25 much has. A click is added to every value, so that a value
    that only one of them has counts for little where it is rare.
    """
    names = sorted(now.keys() | before.keys())
    p, q = (np.array([counts.get(name, 0) + 1.0 for name in names]) for counts in (now, before))
    p, q = p / p.sum(), q / q.sum()
    return float(((p - q) * np.log(p / q)).sum())


def describe(folder: Path, card: DatasetCard, before: dict | None) -> dict:
    """Counts, imbalance, coverage and drift of a training set.

    Args:
        folder: With the set's tables.
        before: The data card of the last set, or None.
    """
    sql = duckdb.connect(config={"memory_limit": "1GB", "threads": 2})
    sources = {name: f"read_parquet('{folder / name}/**/*.parquet')" for name in ("clicks", "test", "queries", "items")}

    def one(query: str) -> tuple:
        return sql.execute(query.format(**sources)).fetchone() or ()

    counted = sql.execute("SELECT item, count(*) AS n FROM {clicks} GROUP BY 1".format(**sources)).fetchnumpy()["n"]
    rows, queries, first, last = one(
        "SELECT count(*), count(DISTINCT query), min(event_time), max(event_time) FROM {clicks}"
    )
    items = one("SELECT count(*) FROM {items}")[0]
    found = {
        "rows": rows,
        "first_click": first,
        "last_click": last,
        "window_queries": queries,
        "window_items": len(counted),
        "items_never_clicked": items - len(counted),
        "item_gini": gini(counted),
        "largest_item_share": float(counted.max(initial=0) / max(rows, 1)),
        "queries": one("SELECT count(*) FROM {queries}")[0],
        "items": items,
        "clicks_without_negatives": one("SELECT count(*) FROM {clicks} WHERE negatives[1] < 0")[0],
        "test_clicks": one("SELECT count(*) FROM {test}")[0],
        "test_clicks_known_query": one("SELECT count(*) FROM {test} WHERE query_id IN (SELECT id FROM {queries})")[0],
        "test_clicks_known_item": one("SELECT count(*) FROM {test} WHERE item_id IN (SELECT id FROM {items})")[0],
    }  # fmt: skip
    for side, table in (("query", "queries"), ("item", "items")):
        found[f"{side}_features_filled"] = {
            name: one(f"SELECT coalesce(avg(({_filled(name, field)})::int), 0) FROM {{{table}}}")[0]
            for name, field in getattr(card, side).features.items()
        }
    if card.item.category:
        category = _column(card.item.category)
        if card.item.features[card.item.category].kind == "categories":
            category += "[1]"
        items = "SELECT row_number() OVER () - 1 AS item, * FROM {items}"
        clicks = f"SELECT {category} AS category FROM {{clicks}} JOIN ({items}) USING (item)"
        named = sql.execute(
            f"SELECT category, count(*) FROM ({clicks}) WHERE category IS NOT NULL GROUP BY 1 ORDER BY 1".format(
                **sources
            )
        ).fetchall()
        found |= _categories({name: int(count) for name, count in named}, rows, before)
    sql.close()
    return found


def _column(name: str) -> str:
    """A profile column in SQL: a feature may have any name."""
    quoted = (PROFILE + name).replace('"', '""')
    return f'"{quoted}"'.replace("{", "{{").replace("}", "}}")


def _filled(name: str, field: Field_) -> str:
    column = _column(name)
    return f"len({column}) > 0" if field.kind == "categories" else f"{column} IS NOT NULL"


def _categories(counts: dict[str, int], total: int, before: dict | None) -> dict:
    sizes = np.array(list(counts.values()), np.int64)
    found = {
        "categories": counts,
        "category_gini": gini(sizes),
        "largest_category_share": float(sizes.max(initial=0) / max(total, 1)),
        "clicks_without_category": total - int(sizes.sum()),
    }
    if before and "categories" in before:
        found |= {
            "drift_from": before["date"],
            "category_drift": stability_index(counts, before["categories"]),
            "new_categories": sorted(counts.keys() - before["categories"].keys()),
        }
    return found
