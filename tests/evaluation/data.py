"""Test clicks after the window of the made-up log."""

import numpy as np
import pyarrow as pa

from evaluation.test_clicks import TestClicks, make_test
from feature_repo.card import DatasetCard
from tests.training.data import CARD, log, profiles
from training.training_set import TrainingSet

DAY_MS = 86_400_000


def test_clicks(
    data: TrainingSet, clicks: pa.Table, card: DatasetCard = CARD, excludes_seen: bool = False, queries: int = 24,
    catalogues: dict[str, pa.Table] | None = None,
) -> TestClicks:  # fmt: skip
    """Clicks after a training set's window, over its states at the cut."""
    cut_ms = int(data.clicks.times[-1]) + 1
    return make_test(
        clicks,
        catalogues or profiles(queries),
        card,
        *data.at_cut,
        data.query_spec,
        data.item_spec,
        excludes_seen,
        cut_ms,
    )


test_clicks.__test__ = False  # type: ignore[attr-defined]


def later(count: int, seed: int, moments: int | None = None) -> pa.Table:
    """Clicks of the day after the log's, some by a query and on items that nobody knows."""
    clicks = log(count, seed=seed, moments=moments)
    names = {side: clicks[f"{side}_id"].to_pylist() for side in ("query", "item")}
    names["query"][5] = names["query"][9] = "q-new"
    names["item"][7] = names["item"][20] = "i-new"
    return replaced(clicks, event_time=clicks["event_time"].to_numpy() + DAY_MS * (1 + (moments or 0) // 24),
                    query_id=names["query"], item_id=names["item"])  # fmt: skip


def replaced(table: pa.Table, **columns: list | np.ndarray) -> pa.Table:
    for name, values in columns.items():
        table = table.set_column(table.column_names.index(name), name, pa.array(values))
    return table
