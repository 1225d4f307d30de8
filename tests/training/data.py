"""A made-up log whose right answers are known: queries click films of their own genre."""

import numpy as np
import pyarrow as pa

from feature_repo.card import DatasetCard
from model.settings.model import AMM, NO_CLOSED_FORM, PAPER, DATConfig, MemoryConfig, TowerConfig
from tests.tiny import CUT_MS, GENRES, TINY, item_profiles, query_profiles
from training.build import build_tables, in_fold_order
from training.training_set import Tables, TrainingSet

QUERIES, ITEMS = 24, 60
CARD: DatasetCard = TINY.model_copy(update={"history": 50})
SMALL = TowerConfig(embedding_dim=8, hidden=(32, 16), output_dim=8)
CONFIG = AMM.model_copy(
    update={"tower": SMALL, "batch_size": 32, "epochs": 4, "learning_rate": 6e-3, "temperature": 5.0}
)
MEMORIES = DATConfig(
    memory=MemoryConfig(dim=8, rates=(0.4, 0.1), second=8, hidden=16, span=6), batch_size=32, epochs=4,
    learning_rate=6e-3, temperature=5.0, closed_form=NO_CLOSED_FORM,
)  # fmt: skip
# The published form with a linear head, since eq. 1's own collapses; strong enough to be seen in a few epochs.
GRADIENT = PAPER.model_copy(
    update={
        "tower": SMALL, "batch_size": 32, "epochs": 4, "learning_rate": 6e-3, "temperature": 5.0,
        "paper": PAPER.paper.model_copy(update={"relu_head": False}),
    }
)  # fmt: skip


def profiles(queries: int = QUERIES) -> dict[str, pa.Table]:
    return {"query": pa.table(query_profiles(queries)), "item": pa.table(item_profiles(ITEMS))}


def table(query: np.ndarray, item: np.ndarray, times: np.ndarray) -> pa.Table:
    """Clicks in order of time as a log: event ids and positions are their numbers."""
    count = len(times)
    log = pa.table(
        {
            "event_id": [f"e{k:06d}" for k in range(count)],
            "query_id": [f"q{k}" for k in query],
            "item_id": [f"i{k}" for k in item],
            "event_time": times,
            "position": np.arange(count),
        }
    )
    return in_fold_order(log, CARD)


def log(
    count: int = 600, seed: int = 0, strength: float = 0.9, queries: int = QUERIES, moments: int | None = None
) -> pa.Table:
    """Clicks in order of time: query k likes the films whose number is k modulo the number of genres.

    Args:
        moments: How many distinct times they share, an hour apart; None: each has one of its own, all in a day.
    """
    rng = np.random.default_rng(seed)
    query = rng.integers(0, queries, count)
    liked = rng.integers(0, ITEMS // len(GENRES), count) * len(GENRES) + query % len(GENRES)
    item = np.where(rng.random(count) < strength, liked, rng.integers(0, ITEMS, count))
    times = CUT_MS - np.sort(rng.integers(0, 86_400_000, count))[::-1]
    if moments is not None:
        times = CUT_MS - 3_600_000 * np.sort(rng.integers(1, moments + 1, count))[::-1]
    return table(query, item, times)


def pair_of_a_moment(clicks: pa.Table, start: int) -> tuple[int, int]:
    """Two clicks of one query at one moment, after ``start`` others of the log."""
    names, times = clicks["query_id"].to_pylist(), clicks["event_time"].to_pylist()
    pairs = ((at, then) for at in range(start, len(names)) for then in range(at + 1, len(names)))
    return next((at, then) for at, then in pairs if (names[at], times[at]) == (names[then], times[then]))


def training_set(
    count: int = 600, negatives: int = 4, card: DatasetCard = CARD, window: pa.Table | None = None,
    before: int = 0, catalogues: dict[str, pa.Table] | None = None, **choices,
) -> TrainingSet:  # fmt: skip
    """The training set of a log, by default :func:`log`.

    Args:
        before: How many of its first clicks are from before the window.
    """
    return TrainingSet.of(tables(count, negatives, card, window, before, catalogues, **choices), card)


def tables(
    count: int = 600, negatives: int = 4, card: DatasetCard = CARD, window: pa.Table | None = None,
    before: int = 0, catalogues: dict[str, pa.Table] | None = None, **choices,
) -> Tables:  # fmt: skip
    """Those of :func:`training_set`."""
    window = log(count, **choices) if window is None else window
    cut_ms = int(window["event_time"][-1].as_py()) + 1
    return build_tables(
        window.slice(0, before), window.slice(before), catalogues or profiles(choices.get("queries", QUERIES)), card,
        cut_ms, negatives, 0,
    )  # fmt: skip
