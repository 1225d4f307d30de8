"""Spark, the replay and the stream count the same on the same clicks; Spark goes on from what it counted before."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from pyspark.sql import DataFrame, SparkSession

from feature_repo.card import load_card
from feature_repo.store import open_store
from model.bundle import Bundle
from model.bundle_store import BundleStore
from model.settings.night import Rules
from model.state import EntityState
from spark_jobs.activity_snapshot import Activity, snapshot
from spark_jobs.lake import land, read_lake
from spark_jobs.land_log import land_log
from streaming.clicks import Clicks
from streaming.stages import item_stage, query_stage
from streaming.stages.item_readings import ItemReadings
from streaming.stages.profiles import NewProfiles, Profiles
from tests.market import FIRST_MS, write_market
from tests.spark_jobs.conftest import FinishedNight
from training.training_set import TrainingSet

SIDES = ("query", "item")
BATCH = 150
DAY = 86_400_000


@pytest.fixture(scope="module")
def log(finished_night: FinishedNight) -> pd.DataFrame:
    """The clicks from before the cut, each once, in order of time."""
    clicks = pd.read_csv(finished_night.settings.data / "market" / "clicks.csv").drop_duplicates()
    clicks = clicks.rename(columns={"user": "query_id", "shop": "item_id", "at": "event_time"})
    clicks = clicks[clicks.event_time < pd.Timestamp(finished_night.summary.date, tz="UTC").value // 1_000_000]
    return clicks.sort_values("event_time", kind="stable", ignore_index=True)


@pytest.fixture(scope="module")
def bundle(finished_night: FinishedNight) -> Bundle:
    """The night's model, which has seen nobody yet: all state below comes from the clicks alone."""

    def nobody(state: EntityState) -> EntityState:
        return EntityState([], **{name: column[:0] for name, column in state.columns.items()})

    bundle = BundleStore(finished_night.settings.home / "bundles").load()
    return replace(bundle, queries=nobody(bundle.queries), items=nobody(bundle.items))


def by_spark(home: Path, side: str, moment: int) -> pd.DataFrame:
    """The newest row of each id in Spark's history, as of a moment: clicks, counters, last_click."""
    rows = pq.read_table(home / "offline" / f"{side}_activity" / "part=all").to_pandas()
    rows = rows[rows.last_click <= moment].sort_values("last_click")
    return rows.groupby(f"{side}_id").last()[["clicks", "counters", "last_click"]]


def assert_counted(expected: pd.DataFrame, state: EntityState) -> None:
    clicked = np.flatnonzero(state.clicks)
    ids = [state.ids[row] for row in clicked]
    assert sorted(expected.index) == sorted(ids)
    expected = expected.loc[ids]
    np.testing.assert_array_equal(state.clicks[clicked], expected.clicks)
    np.testing.assert_array_equal(state.last_click[clicked], expected.last_click)
    np.testing.assert_allclose(state.counters[clicked], np.stack(expected.counters), rtol=1e-4, atol=1e-6)


def test_the_stream_knows_at_every_moment_what_spark_says(finished_night, log, bundle):
    spec, home = bundle.manifest, finished_night.settings.home
    store = open_store(home)
    queries, items = bundle.queries.copy(), bundle.items.copy()
    profiles = NewProfiles(Profiles(store, "query", spec.query)), NewProfiles(Profiles(store, "item", spec.item))
    vectors = ItemReadings(bundle, Profiles(store, "item", spec.item))
    times = log.event_time.to_numpy()
    opens = spec.window[0].timestamp() * 1000  # where Spark's history begins
    assert (times > opens).mean() > 0.5
    # Spark keeps one row a moment, so a batch ends where the time changes.
    moves = np.flatnonzero(times[1:] != times[:-1]) + 1
    bounds = [0, *moves[np.searchsorted(moves, range(BATCH, len(log) - BATCH, BATCH))], len(log)]
    for start, stop in zip(bounds[:-1], bounds[1:], strict=True):
        some, n = log[start:stop], stop - start
        clicks = Clicks(
            [str(k) for k in range(n)], some.query_id.tolist(), some.item_id.tolist(), times[start:stop],
            np.zeros(n, np.int64), np.arange(n), np.ones(n, np.float32),
        )  # fmt: skip
        step = query_stage.step(clicks, queries, profiles[0], vectors, bundle)
        step.update.apply(queries)
        signals = item_stage.Signals(clicks.item_ids, step.vectors, clicks.times, np.zeros(n, np.int64), step.weights)
        item_stage.step(signals, items, profiles[1], bundle).apply(items)
        if times[stop - 1] >= opens:
            for side, state in zip(SIDES, (queries, items), strict=True):
                assert_counted(by_spark(home, side, times[stop - 1]), state)


def test_the_replay_knows_at_the_cut_what_spark_says(finished_night, log):
    data = TrainingSet.load(finished_night.folder, finished_night.card)
    for side, state in zip(SIDES, data.at_cut, strict=True):
        assert_counted(by_spark(finished_night.settings.home, side, log.event_time.max()), state)


class Lake:
    """A landed market, and the activity of its clicks before a day."""

    def __init__(self, spark: SparkSession, folder: Path):
        self.spark, self.folder, self.clicks = spark, folder, folder / "lake"
        self.card = load_card(write_market(folder, clicks=400))
        land_log(self.card, folder / "market", self.clicks, Rules())

    def counted(self, kept: str, day: int, since: int = 0, keep: bool = True) -> dict[str, pd.DataFrame]:
        clicks: DataFrame = read_lake(self.spark, self.card, self.clicks)
        clicks = clicks.where(clicks.event_time.between(FIRST_MS + since * DAY, FIRST_MS + day * DAY - 1))
        at = FIRST_MS + day * DAY
        found = snapshot(self.spark, self.folder / kept, clicks, self.clicks, self.card, at, keep)
        return {
            name: rows.toPandas().set_index(rows.columns[0]).sort_index()
            for name, rows in zip(Activity._fields, found, strict=True)
        }


def assert_same(one: dict[str, pd.DataFrame], two: dict[str, pd.DataFrame]) -> None:
    for side in SIDES:
        pd.testing.assert_frame_equal(
            one[side].drop(columns="counters"), two[side].drop(columns="counters"), check_like=True
        )
        np.testing.assert_allclose(np.stack(one[side].counters), np.stack(two[side].counters), rtol=1e-9, atol=1e-12)
    assert one["recent"].history.map(list).equals(two["recent"].history.map(list))


def test_a_snapshot_goes_on_from_an_earlier_one_while_the_days_before_it_are_as_they_were(spark, tmp_path):
    lake = Lake(spark, tmp_path)
    lake.counted("kept", 2)
    # It is given the clicks of the days since alone, and has those before them nevertheless.
    assert_same(lake.counted("kept", 4, since=2), lake.counted("anew", 4))
    late = spark.createDataFrame([("e", "u1", "s1", FIRST_MS + 7)], "event_id string, query_id string, "
                                 "item_id string, event_time long")  # fmt: skip
    more = {"partition": "int", "offset": "long", "event_type": "string", "value": "double", "position": "long"}
    land(late.selectExpr("*", *[f"CAST(NULL AS {kind}) AS {name}" for name, kind in more.items()]),
         lake.card, lake.clicks, "late")  # fmt: skip
    counted = lake.counted("kept", 4)
    assert_same(counted, lake.counted("again", 4))
    assert (
        counted["query"].clicks.sum()
        == read_lake(spark, lake.card, lake.clicks).where(f"event_time < {FIRST_MS + 4 * DAY}").count()
    )


def test_a_snapshot_of_a_part_of_the_lake_is_not_gone_on_from(spark, tmp_path):
    lake = Lake(spark, tmp_path)
    lake.counted("kept", 2, since=1, keep=False)
    assert_same(lake.counted("kept", 3), lake.counted("anew", 3))
