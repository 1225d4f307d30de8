"""What a real night wrote, held against brute force on the log itself."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from cli.nightly import run_night
from feature_repo.store import open_store
from spark_jobs.feast_check import check_against_feast, sample
from spark_jobs.training_set import data_card
from spark_jobs.validate import BadNight
from tests.market import FIRST_MS
from tests.spark_jobs.conftest import FinishedNight, Silent
from training.training_set import TrainingSet

DAY = 86_400_000
HALF_LIVES_H = {"query": (1, 24), "item": (1, 6, 24)}


@pytest.fixture(scope="module")
def log(finished_night: FinishedNight) -> pd.DataFrame:
    """All clicks of the log, each once, in order of time."""
    clicks = pd.read_csv(finished_night.settings.data / "market" / "clicks.csv").drop_duplicates()
    clicks = clicks.rename(columns={"user": "query_id", "shop": "item_id", "at": "event_time"})
    return clicks.sort_values("event_time", kind="stable", ignore_index=True)


@pytest.fixture(scope="module")
def data(finished_night: FinishedNight) -> TrainingSet:
    return TrainingSet.load(finished_night.folder, finished_night.card)


@pytest.fixture(scope="module")
def rows(data: TrainingSet) -> pd.DataFrame:
    """The clicks by their names."""
    return pd.DataFrame({
        "query_id": np.array(data.queries.ids)[data.clicks.queries],
        "item_id": np.array(data.items.ids)[data.clicks.items],
        "event_time": data.clicks.times,
    })  # fmt: skip


@pytest.fixture(scope="module")
def cut(finished_night: FinishedNight) -> int:
    return int(pd.Timestamp(finished_night.summary.date, tz="UTC").value // 1_000_000)


@pytest.fixture(scope="module")
def shops(finished_night: FinishedNight) -> pd.DataFrame:
    return pd.read_csv(finished_night.settings.data / "market" / "shops.csv").set_index("shop")


def test_every_click_of_the_window_is_a_row_and_no_other(rows, log, cut, finished_night):
    inside = log[(log.event_time >= cut - 3 * DAY) & (log.event_time < cut)]
    asked = sorted(zip(inside.query_id, inside.item_id, inside.event_time, strict=True))
    assert sorted(zip(rows.query_id, rows.item_id, rows.event_time, strict=True)) == asked
    assert (np.diff(rows.event_time) >= 0).all()
    assert finished_night.summary.rows == len(asked) > 1_000


def test_each_positive_has_s_negatives_that_existed_before_its_moment(data, log, shops, finished_night):
    """A shop exists from its opening or its first click, whichever is earlier."""
    night = finished_night.settings.night_of(finished_night.card)
    assert data.negatives.shape == (len(data.clicks), night.negatives) and data.negatives.min() >= 0
    since = log.groupby("item_id").event_time.min().combine(shops.opened, np.fmin).reindex(data.items.ids).to_numpy()
    np.testing.assert_array_equal(since, data.items.since)
    assert (since[data.negatives] < data.clicks.times[:, None]).all()
    late = np.flatnonzero(since > FIRST_MS)
    assert np.isin(data.negatives, late).any(), "the market should have shops that open late, or this shows nothing"


def test_negatives_are_uniform_over_the_items_that_exist(data):
    early = data.items.since < data.clicks.times[0]
    drawn = np.bincount(data.negatives.ravel(), minlength=len(early))[early]
    assert drawn.std() < 1.5 * np.sqrt(drawn.mean())


def before(log: pd.DataFrame, side: str, key: str, moment: int) -> tuple[int, np.ndarray, int]:
    past = log[(log[f"{side}_id"] == key) & (log.event_time < moment)]
    if past.empty:
        return 0, np.zeros(len(HALF_LIVES_H[side])), 0
    last = past.event_time.max()
    ages = (last - past.event_time.to_numpy()) / 3_600_000
    return len(past), np.array([np.exp2(-ages / h).sum() for h in HALF_LIVES_H[side]]), last


def test_what_the_trainer_reads_is_the_activity_of_just_before_each_moment(data, log):
    """Four batches: their queries before each click, and all their candidates as of the batch's start."""
    compared, rng = 0, np.random.default_rng(0)
    for part in sample(data, 64):
        for n in rng.choice(len(part.ids), min(30, len(part.ids)), replace=False):
            clicks, counters, last = before(log, part.side, part.ids[n], part.moments[n])
            assert (part.clicks[n], part.last_click[n] if clicks else 0) == (clicks, last)
            if clicks:
                np.testing.assert_allclose(part.counters[n], counters, rtol=1e-4)
            compared += 1
    assert compared == 8 * 30


def test_a_replay_that_leaks_its_own_moment_is_told_from_feasts_history_and_stops_the_night(data, finished_night):
    store = open_store(finished_night.settings.home)
    assert check_against_feast(store, data, 64) > 300
    leaky = data.with_clicks(replace(data.clicks, moments=np.arange(len(data.clicks))), data.negatives)
    with pytest.raises(BadNight, match="the training set and Feast disagree in .* query u"):
        check_against_feast(store, leaky, 1_000)


def test_profiles_are_the_catalogues(finished_night, shops):
    users = pd.read_csv(finished_night.settings.data / "market" / "users.csv").set_index("user")
    queries, items = (pq.read_table(finished_night.folder / name).to_pandas() for name in ("queries", "items"))
    assert (queries.profile__city == users.city[queries.id].to_numpy()).all()
    assert (queries.profile__age == users.age[queries.id].to_numpy()).all()
    there = shops.loc[items.id]
    assert (items.profile__opened.to_numpy() == there.opened.to_numpy()).all()
    assert (items.profile__kinds.str.join(" ").to_numpy() == there.kinds.to_numpy()).all()


def test_feast_has_no_features_of_an_item_before_it_exists(finished_night, shops):
    late = shops[shops.opened > FIRST_MS].opened.sort_values()
    asked = pd.DataFrame({
        "item_id": [name for name in late.index for _ in range(2)],
        "event_timestamp": pd.to_datetime(np.repeat(late.to_numpy(), 2) * 1000 + np.tile([-1, 0], len(late)),
                                          unit="us", utc=True),
    })  # fmt: skip
    store = open_store(finished_night.settings.home)
    found = store.get_historical_features(asked, ["item_profile:opened"]).to_df()
    found = found.sort_values(["item_id", "event_timestamp"]).opened.to_numpy().reshape(-1, 2)
    assert np.isnan(found[:, 0]).all()
    assert found[:, 1].tolist() == late.sort_index().tolist()


def test_the_data_card_counts_what_is_in_the_set(finished_night, rows, log, cut, shops):
    card = data_card(finished_night.folder)
    test = log[(log.event_time >= cut) & (log.event_time < cut + DAY)]
    assert card["rows"] == len(rows) and card["test_clicks"] == len(test)
    assert card["window_queries"] == rows.query_id.nunique()
    counts = rows.item_id.value_counts()
    assert card["window_items"] == len(counts)
    assert card["largest_item_share"] == pytest.approx(counts.max() / len(rows))
    differences = np.abs(counts.to_numpy()[:, None] - counts.to_numpy()[None, :]).mean()
    assert card["item_gini"] == pytest.approx(differences / (2 * counts.mean()))
    expected = rows.item_id.map(shops.kinds.str.split().str[0]).value_counts()
    assert card["categories"] == expected.to_dict()
    assert card["query_features_filled"] == {"city": 1, "age": 1}


def test_the_test_clicks_are_those_of_the_day_after_the_window(finished_night, log, cut):
    test = pq.read_table(finished_night.folder / "test").to_pandas()
    day = log[(log.event_time >= cut) & (log.event_time < cut + DAY)]
    asked = sorted(zip(day.query_id, day.item_id, day.event_time, strict=True))
    assert sorted(zip(test.query_id, test.item_id, test.event_time, strict=True)) == asked and len(asked) > 300


def test_both_sides_begin_the_window_with_every_click_before_it_and_end_it_with_all(data, log, cut):
    for moment, states in ((cut - 3 * DAY, (data.queries, data.items)), (cut, data.at_cut)):
        known = log[log.event_time < moment]
        for side, state in zip(("query", "item"), states, strict=True):
            counts = known.groupby(f"{side}_id").size().reindex(state.ids).fillna(0)
            np.testing.assert_array_equal(state.clicks, counts)
        queries, items = states
        someone = known.query_id.iloc[-1]
        row = queries.ids.index(someone)
        newest = queries.recent_items[row][(queries.clicks[row] - 1) % queries.recent_items.shape[1]]
        mine = known[known.query_id == someone]
        assert items.ids[newest] in set(mine[mine.event_time == mine.event_time.max()].item_id)
        assert queries.recent_items.shape[1] == 20


def test_a_date_run_again_gives_the_same_rows_and_the_same_bundle(finished_night):
    first = finished_night.summary
    again = run_night(finished_night.settings, again=True, progress=Silent())
    assert again.training_set_sha256 == first.training_set_sha256
    assert again.bundle == first.bundle
    assert again.gate.verdict == "published"
