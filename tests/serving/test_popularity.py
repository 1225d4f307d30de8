"""What is popular, by a filter and at large, beside all rows in order."""

import numpy as np
import pytest

from serving import popularity
from serving.index import latest_writes
from serving.index.subset import Subset
from serving.popularity import COLD, Popularity


@pytest.mark.parametrize("kept", [5, 65_536], ids=["changes are soon forgotten", "changes are remembered"])
def test_a_filter_asked_now_and_then_gets_what_all_rows_in_order_say(kept, monkeypatch):
    monkeypatch.setattr(latest_writes, "_ROWS", kept)
    monkeypatch.setattr(popularity, "_HEAD", 20)
    rng = np.random.default_rng(0)
    heat = np.where(rng.random(300) < 0.3, COLD, rng.normal(size=300))
    kept_in_order = Popularity(heat)
    filters = [None, *(Subset(np.flatnonzero(rng.random(300) < share)) for share in (0.02, 0.1, 0.5))]
    for _ in range(400):
        rows = np.unique(rng.integers(0, 320, rng.integers(1, 6)))
        heat = np.concatenate([heat, np.full(max(0, rows.max() + 1 - len(heat)), -np.inf)])
        heat[rows] = np.where(rng.random(len(rows)) < 0.2, -np.inf, rng.normal(size=len(rows)) + rng.integers(-2, 3))
        kept_in_order.put(rows, heat[rows])
        only = filters[rng.integers(4)]
        if rng.random() < 0.5:
            mine = np.arange(len(heat)) if only is None else np.flatnonzero(only.holds(np.arange(len(heat))))
            mine = mine[np.isfinite(heat[mine])]
            expected = mine[np.lexsort((mine, -heat[mine]))][:10]
            assert kept_in_order.top(10, only=only)[0].tolist() == expected.tolist()


def test_a_change_costs_nothing_for_filters_that_nobody_asks(monkeypatch):
    updates = []
    update = popularity._Head.update
    monkeypatch.setattr(popularity._Head, "update", lambda *given: updates.append(1) or update(*given))
    heat = Popularity(np.arange(100.0))
    filters = [Subset(np.arange(n, 100, 7)) for n in range(7)]
    for only in filters:
        heat.top(5, only=only)
    for row in range(50):
        heat.put(np.array([row]), np.array([200.0 + row]))
    assert len(updates) == 50
    assert [heat.top(1, only=only)[0].tolist() for only in filters] == [[49], [43], [44], [45], [46], [47], [48]]
    assert len(updates) == 57
