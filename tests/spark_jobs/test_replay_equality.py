"""What the replay knows before each moment is what Feast joins, and what counting the clicks by hand gives."""

from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pyspark.sql import functions as F

from feature_repo.card import load_card
from feature_repo.store import open_store, register
from model.settings.night import NightConfig
from spark_jobs import feast_check, training_set
from spark_jobs.lake import land
from spark_jobs.land_catalogue import land_catalogue
from spark_jobs.nightly import Night
from tests.market import FIRST_MS
from tests.spark_jobs.conftest import Silent
from training.training_set import TrainingSet

DAY, MINUTE = 86_400_000, 60_000
QUERIES, ITEMS, CLICKS = 12, 20, 400
HALF_LIVES = {"query": (3_600_000, DAY), "item": (600_000, 6 * 3_600_000)}
CARD = """
name = "random"
title = "Random clicks"
window_days = 3
history = 4
query = { half_lives = ["1h", "24h"] }
[clicks]
path = "-"
query = "q"
item = "i"
time = "t"
event_type = "kind"
events = { buy = 2.5, view = 1, no = -1 }
[item]
table = { path = "items.parquet", id = "item" }
half_lives = ["10m", "6h"]
[item.features]
price = { column = "price", kind = "number" }
"""


def log(seed: int) -> pd.DataFrame:
    """Five days of events of three types, of which many share their moment; those of the second part come late."""
    rng = np.random.default_rng(seed)
    return pd.DataFrame({
        "event_id": [f"e{n}" for n in range(CLICKS)],
        "query_id": [f"q{n}" for n in rng.integers(0, QUERIES, CLICKS)],
        "item_id": [f"i{n}" for n in rng.integers(0, ITEMS, CLICKS)],
        "event_time": FIRST_MS + rng.integers(0, 5 * DAY // (37 * MINUTE), CLICKS) * 37 * MINUTE,
        "event_type": rng.choice(["buy", "view", "no"], CLICKS),
        "late": rng.random(CLICKS) < 0.3,
    })  # fmt: skip


def by_hand(clicks: pd.DataFrame, side: str, key: str, moment: int) -> tuple[int, np.ndarray, int]:
    before = clicks[(clicks[f"{side}_id"] == key) & (clicks.event_time < moment)]
    times, weights = before.event_time.to_numpy(), before.event_type.map({"buy": 2.5, "view": 1.0}).to_numpy()
    last = times.max(initial=0)
    counters = [(weights * np.exp2((times - last) / half_life)).sum() for half_life in HALF_LIVES[side]]
    return len(times), np.array(counters), last


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_replay_feast_and_counting_by_hand_agree_on_ties_late_clicks_and_types(
    seed: int, spark, tmp_path: Path, monkeypatch
):
    (tmp_path / "random.toml").write_text(CARD)
    items = pd.DataFrame({"item": [f"i{n}" for n in range(ITEMS)], "price": np.arange(ITEMS, dtype=np.float32)})
    items.to_parquet(tmp_path / "items.parquet")
    card, events = load_card(tmp_path / "random.toml"), log(seed)
    for name, part in (("log-000001", events[~events.late]), ("log-000002", events[events.late])):
        rows = part.drop(columns="late").assign(value=np.nan, position=part.index)
        place = {"partition": F.lit(None).cast("int"), "offset": F.lit(None).cast("long")}
        land(spark.createDataFrame(rows).withColumns(place), card, tmp_path / "lake" / "clicks", name)
    for side in ("query", "item"):
        land_catalogue(card, tmp_path, side, tmp_path / "lake" / "catalogues" / side)
    store = open_store(tmp_path)
    register(store, card, tmp_path)
    night = Night(tmp_path, card, store, NightConfig(negatives=3), Silent())
    day = date(2023, 11, 15) + timedelta(days=4)
    folder = training_set.folder_of(tmp_path, day)
    night._build(night._cut(spark, day), folder, "random")
    data = TrainingSet.load(folder, card)

    clicks, compared = events[events.event_type != "no"], 0
    monkeypatch.setattr(feast_check, "AT_LEAST", CLICKS)
    monkeypatch.setattr(feast_check, "AT_MOST", CLICKS)
    for part in feast_check.sample(data, 64):
        for n, (key, moment) in enumerate(zip(part.ids, part.moments, strict=True)):
            count, counters, last = by_hand(clicks, part.side, key, moment)
            assert (part.clicks[n], part.last_click[n]) == (count, last), (part.side, key, moment)
            np.testing.assert_allclose(part.counters[n], counters, rtol=1e-4, atol=1e-6)
            compared += 1
    assert feast_check.check_against_feast(store, data, 64) == compared > len(data.clicks) > 100
    shared = len(data.clicks) - len(np.unique(np.stack([data.clicks.queries, data.clicks.times]), axis=1).T)
    assert shared > 0, "some queries should have clicked twice at one moment"
