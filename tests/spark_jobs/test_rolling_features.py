"""Spark, the stream and the live evaluation give the same rolling features on the same clicks."""

from dataclasses import fields, replace

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_repo.store import open_store
from spark_jobs.retrain import read_catalogues
from streaming import item_stage, query_stage
from streaming.clicks import Clicks
from streaming.item_vectors import ItemVectors
from streaming.profiles import Profiles
from streaming.state import SideState
from tests.spark_jobs.conftest import FinishedNight
from training.bundle import Bundle, Shelf, SideTable
from training.features import dense
from training.replay import Activity, make_replay

SIDES = ("query", "item")
BATCH = 150


@pytest.fixture(scope="module")
def log(finished_night: FinishedNight) -> pd.DataFrame:
    """All clicks of the log, each once, in order of time."""
    clicks = pd.read_csv(finished_night.settings.data / "market" / "clicks.csv").drop_duplicates()
    clicks = clicks.rename(columns={"user": "query_id", "shop": "item_id", "at": "event_time"})
    return clicks.sort_values("event_time", kind="stable", ignore_index=True)


@pytest.fixture(scope="module")
def bundle(finished_night: FinishedNight) -> Bundle:
    """The night's model, which has seen nobody yet: all state below comes from the clicks alone."""

    def nobody(table: SideTable) -> SideTable:
        return SideTable(**{field.name: getattr(table, field.name)[:0] for field in fields(SideTable)})

    bundle = Shelf(finished_night.settings.home / "bundles").load()
    return replace(bundle, queries=nobody(bundle.queries), items=nobody(bundle.items))


def by_spark(home, side: str, moment: int) -> pd.DataFrame:
    """The newest row of each id in Spark's history, as of a moment: clicks, counters, last_click."""
    rows = pq.read_table(home / "offline" / f"{side}_activity" / "part=all").to_pandas()
    rows = rows[rows.last_click <= moment].sort_values("last_click")
    return rows.groupby(f"{side}_id").last()[["clicks", "counters", "last_click"]]


def assert_equal(expected: pd.DataFrame, ids: list[str], clicks, counters, last_click) -> None:
    assert sorted(expected.index) == sorted(ids)
    expected = expected.loc[ids]
    np.testing.assert_array_equal(clicks, expected.clicks)
    np.testing.assert_array_equal(last_click, expected.last_click)
    np.testing.assert_allclose(counters, np.stack(expected.counters), rtol=1e-4, atol=1e-6)


def test_the_stream_knows_at_every_moment_what_spark_says(finished_night, log, bundle):
    spec, store = bundle.manifest, open_store(finished_night.settings.home)
    queries = SideState(bundle.queries, spec.query, Profiles(store, "query", spec.query), "history")
    items = SideState(bundle.items, spec.item, Profiles(store, "item", spec.item), "vectors")
    vectors = ItemVectors(bundle, Profiles(store, "item", spec.item))
    times = log.event_time.to_numpy()
    opens = bundle.manifest.window[0].timestamp() * 1000  # where Spark's history begins
    assert (times > opens).mean() > 0.5
    # Spark keeps one row a moment, so a batch ends where the time changes.
    moves = np.flatnonzero(times[1:] != times[:-1]) + 1
    bounds = [0, *moves[np.searchsorted(moves, range(BATCH, len(log) - BATCH, BATCH))], len(log)]
    for start, stop in zip(bounds[:-1], bounds[1:], strict=True):
        some, n = log[start:stop], stop - start
        clicks = Clicks(
            [str(k) for k in range(n)], some.query_id.tolist(), some.item_id.tolist(), times[start:stop],
            np.zeros(n, np.int64), np.arange(n),
        )  # fmt: skip
        step = query_stage.step(clicks, queries, vectors, bundle)
        queries.apply(step.new)
        signals = item_stage.Signals(clicks.item_ids, step.vectors, clicks.times, np.zeros(n, np.int64))
        items.apply(item_stage.step(signals, items, bundle).new)
        if times[stop - 1] < opens:
            continue
        for side, state in zip(SIDES, (queries, items), strict=True):
            expected = by_spark(finished_night.settings.home, side, times[stop - 1])
            assert_equal(expected, state.ids, state["clicks"], state["counters"], state["last_click"])
    shares = dense(spec.query, queries.profile(np.arange(queries.size)), queries["counters"], queries["clicks"],
                   queries["last_click"], queries["last_click"])[:, -spec.query.shares.width:]  # fmt: skip
    assert sorted(spec.query.shares.categories) == ["film", "food", "hotel"]
    np.testing.assert_allclose(shares.sum(axis=1), 1, rtol=1e-5)
    assert not shares[:, -1].any() and (shares.max(axis=1) < 1).any()  # no other category; tastes are mixed


def test_the_live_evaluation_knows_what_spark_says(finished_night, log, bundle):
    card, spec = finished_night.card, bundle.manifest
    catalogues = read_catalogues(finished_night.settings.home / "offline")
    clicks = pa.Table.from_pandas(log, preserve_index=False)
    replay = make_replay(clicks, catalogues, card, bundle.queries, bundle.items, spec.query, spec.item)
    items = Activity(replay.item, replay.items, replay.times, spec.item.decays_ms)
    for side, activity, state in zip(
        SIDES, (Activity.of_queries(replay), items), (replay.query, replay.item), strict=True
    ):
        every = np.arange(len(state))
        known = activity.before(every, np.full(len(state), len(log)))
        assert_equal(by_spark(finished_night.settings.home, side, replay.times[-1]), state.ids, *known)
