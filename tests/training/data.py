"""A made-up log whose right answers are known: queries click films of their own genre."""

import numpy as np
import pyarrow as pa

from feature_repo.card import DatasetCard
from tests.tiny import CUT_MS, GENRES, TINY, item_profiles, query_profiles

QUERIES, ITEMS = 24, 60
CARD: DatasetCard = TINY.model_copy(update={"history": 50})


def profiles(queries: int = QUERIES) -> dict[str, pa.Table]:
    return {"query": pa.table(query_profiles(queries)), "item": pa.table(item_profiles(ITEMS))}


def clicks(count: int = 600, seed: int = 0, strength: float = 0.9, queries: int = QUERIES) -> pa.Table:
    """Clicks in order of time: query k likes the films whose number is k modulo the number of genres."""
    rng = np.random.default_rng(seed)
    query = rng.integers(0, queries, count)
    liked = rng.integers(0, ITEMS // len(GENRES), count) * len(GENRES) + query % len(GENRES)
    item = np.where(rng.random(count) < strength, liked, rng.integers(0, ITEMS, count))
    return pa.table(
        {
            "query_id": [f"q{k}" for k in query],
            "item_id": [f"i{k}" for k in item],
            "event_time": CUT_MS - np.sort(rng.integers(0, 86_400_000, count))[::-1],
        }
    )
