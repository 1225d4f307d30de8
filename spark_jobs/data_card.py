"""The data card of a training set: what is in it, how uneven it is, and how far it has moved since the last one."""

from pathlib import Path

import duckdb
import numpy as np

from feature_repo.card import DatasetCard, Field_


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
        folder: With ``positives/``, ``test/``, ``corpus/`` and both states.
        before: The data card of the last set, or None.
    """
    sql = duckdb.connect(config={"memory_limit": "1GB", "threads": 2})
    sources = {name: f"read_parquet('{folder / name}/**/*.parquet')" for name in ("positives", "test", "corpus")}
    sources |= {side: f"read_parquet('{folder / f'{side}_state.parquet'}/*.parquet')" for side in ("query", "item")}

    def one(query: str) -> tuple:
        return sql.execute(query.format(**sources)).fetchone()

    clicks = sql.execute("SELECT clicks FROM {corpus}".format(**sources)).fetchnumpy()["clicks"]
    rows, queries, first, last = one(
        "SELECT count(*), count(DISTINCT query_id), min(event_time), max(event_time) FROM {positives}"
    )
    found = {
        "rows": rows,
        "dropped": int(clicks.sum()) - rows,
        "first_click": first,
        "last_click": last,
        "window_queries": queries,
        "window_items": int((clicks > 0).sum()),
        "items_never_clicked": int((clicks == 0).sum()),
        "item_gini": gini(clicks[clicks > 0]),
        "largest_item_share": float(clicks.max(initial=0) / max(clicks.sum(), 1)),
        "queries": one("SELECT count(*) FROM {query}")[0],
        "items": one("SELECT count(*) FROM {item}")[0],
        "test_clicks": one("SELECT count(*) FROM {test}")[0],
        "test_clicks_known_query": one("SELECT count(*) FROM {test} WHERE query_id IN (SELECT id FROM {query})")[0],
        "test_clicks_known_item": one("SELECT count(*) FROM {test} WHERE item_id IN (SELECT id FROM {item})")[0],
    }  # fmt: skip
    for side in ("query", "item"):
        found[f"{side}_features_filled"] = {
            name: one(f"SELECT coalesce(avg(({_filled(name, field)})::int), 0) FROM {{{side}}}")[0]
            for name, field in getattr(card, side).features.items()
        }
    if card.item.category:
        counted = sql.execute(
            "SELECT category, sum(clicks) FROM {corpus} WHERE category IS NOT NULL GROUP BY 1 ORDER BY 1".format(
                **sources
            )
        ).fetchall()
        found |= _categories({name: int(count) for name, count in counted}, int(clicks.sum()), before)
    sql.close()
    return found


def _filled(name: str, field: Field_) -> str:
    return f"len({name}) > 0" if field.kind == "categories" else f"{name} IS NOT NULL"


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
