"""Clicks through a real broker: every click counts once in both stages, through restarts and crashes."""

import itertools
import time

import numpy as np
import pytest

from model.click import Click
from model.folds import gap_of
from model.partitioner import partitions_of
from model.scan import Groups
from streaming.kafka.clients import TransactionalProducer
from streaming.worker import WorkerError
from tests.conftest import fresh_topics
from tests.streaming.loop import (
    committed,
    eventually,
    folded,
    folds,
    produce,
    running,
    some_clicks,
    truth,
    updater_config,
)
from tests.tiny import CUT_MS, tiny_bundle, tiny_store

VERSION = (f"loop-{number}" for number in itertools.count())


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tiny_store(tmp_path_factory.mktemp("home"), queries=9, items=12)


def everything_counted(kafka, bundle, clicks) -> bool:
    by_query, by_item = truth(clicks)
    return folded(kafka, "query", bundle) == by_query and folded(kafka, "item", bundle) == by_item


def assert_counted_once(kafka, bundle, clicks) -> None:
    by_query, by_item = truth(clicks)
    assert folded(kafka, "query", bundle) == by_query
    assert folded(kafka, "item", bundle) == by_item


def one_thread_reference(bundle, clicks) -> dict[str, np.ndarray]:
    """a_u of every query after the clicks, one by one, with what the bundle reads of its items."""
    config, table, items = bundle.manifest.config, bundle.queries, bundle.items
    inputs = items.inputs(bundle.manifest.item, np.arange(len(items)), items.as_of)
    readings = dict(zip(items.ids, bundle.towers.read(inputs, items.a), strict=True))
    a = dict(zip(table.ids, table.a, strict=True))
    n = dict(zip(table.ids, table.update_count.tolist(), strict=True))
    last = dict(zip(table.ids, table.last_click.tolist(), strict=True))
    one, nothing = Groups.of(np.zeros(1, int), 1), np.zeros(table.a.shape[1], np.float32)
    for click in clicks:
        key = click.query_id
        count, before = np.array([n.get(key, 0)]), a.get(key, nothing)[None]
        gap = gap_of(config, np.array([last.get(key, 0)]), np.array([click.event_time]))
        a[key] = bundle.towers.memory.fold(one, before, count, readings[click.item_id][None], gap).after()[0]
        n[key], last[key] = int(count[0]) + 1, max(last.get(key, 0), click.event_time)
    return a


def test_every_click_counts_once_and_a_u_is_the_reference(kafka, store):
    bundle = tiny_bundle(next(VERSION), frozen_items=True)
    clicks = some_clicks(300, new=0)
    with running(bundle, store, updater_config(kafka, batch_clicks=37), feast_sink=False):
        produce(kafka, clicks)
        eventually(lambda: everything_counted(kafka, bundle, clicks), "all clicks are folded")
    reference = one_thread_reference(bundle, clicks)
    for key, row in committed(kafka, "query", bundle).items():
        np.testing.assert_allclose(np.reshape(row["a"], reference[key].shape), reference[key], atol=1e-5, err_msg=key)


def test_a_restart_goes_on_where_it_was(kafka, store):
    bundle = tiny_bundle(next(VERSION), frozen_items=True)
    clicks, config = some_clicks(240, new=0), updater_config(kafka)
    for part in (clicks[:80], clicks[80:160], clicks[160:]):
        with running(bundle, store, config, feast_sink=False):
            produce(kafka, part)
            done = clicks[: clicks.index(part[-1]) + 1]
            eventually(lambda done=done: everything_counted(kafka, bundle, done), "this part is folded")
    reference = one_thread_reference(bundle, clicks)
    for key, row in committed(kafka, "query", bundle).items():
        np.testing.assert_allclose(np.reshape(row["a"], reference[key].shape), reference[key], atol=1e-5, err_msg=key)


def test_it_starts_at_the_bundles_cut(kafka, store):
    seen, fresh = some_clicks(50, new=0), some_clicks(50, new=0, seed=2, start=50)
    produce(kafka, seen)
    offsets = {0: 0, 1: 0}
    for partition in partitions_of([click.query_id for click in seen], 2).tolist():
        offsets[partition] += 1
    bundle = tiny_bundle(next(VERSION), offsets=offsets)
    with running(bundle, store, updater_config(kafka), feast_sink=False):
        produce(kafka, fresh)
        eventually(lambda: everything_counted(kafka, bundle, fresh), "the clicks after the cut are folded")
    assert_counted_once(kafka, bundle, fresh)


def test_signals_of_another_bundle_are_dropped(kafka, store):
    old, new = tiny_bundle(next(VERSION)), tiny_bundle(next(VERSION), seed=9)
    clicks = some_clicks(60)
    for bundle in (old, new):  # the second replays the same clicks in a space of its own
        with running(bundle, store, updater_config(kafka), feast_sink=False):
            if bundle is old:
                produce(kafka, clicks)
            eventually(lambda b=bundle: everything_counted(kafka, b, clicks), "all clicks are folded")
    assert_counted_once(kafka, old, clicks)
    assert_counted_once(kafka, new, clicks)


def test_time_alone_refreshes_an_item_for_the_index_but_not_for_the_store(kafka, tmp_path):
    bundle, store = tiny_bundle(next(VERSION)), tiny_store(tmp_path)
    first = Click(event_id="a", query_id="q1", item_id="i1", event_time=CUT_MS)
    later = Click(event_id="b", query_id="q1", item_id="i2", event_time=CUT_MS + 86_400_000)
    with running(bundle, store, updater_config(kafka, tick_ms=50)):
        produce(kafka, [first])
        eventually(lambda: "i1" in committed(kafka, "item", bundle), "the first click is folded")
        then = committed(kafka, "item", bundle)["i1"]
        produce(kafka, [later])
        eventually(lambda: committed(kafka, "item", bundle)["i1"]["vector"] != then["vector"], "i1 is recomputed")
    now = committed(kafka, "item", bundle)["i1"]
    assert {**now, "vector": None} == {**then, "vector": None}
    counters = store.get_online_features(features=["item_activity:counters"], entity_rows=[{"item_id": "i1"}]).to_dict()
    np.testing.assert_allclose(counters["counters"][0], then["counters"])


@pytest.mark.parametrize("moment", ["after_sending", "after_commit"])
def test_a_crash_around_the_commit_loses_and_doubles_nothing(kafka, store, monkeypatch, moment):
    """The first tries of every stage break: before the commit, or after it without the worker's knowing."""
    bundle, clicks = tiny_bundle(next(VERSION), frozen_items=True), some_clicks(120, new=0)
    broken = itertools.count()

    class Breaking(TransactionalProducer):
        def send_offsets_to_transaction(self, *args):
            if moment == "after_sending" and next(broken) % 3 == 0:
                raise OSError("torn off before the commit")
            return super().send_offsets_to_transaction(*args)

        def commit_transaction(self):
            super().commit_transaction()
            if moment == "after_commit" and next(broken) % 3 == 0:
                raise OSError("torn off before the answer")

    monkeypatch.setattr("streaming.kafka.clients.TransactionalProducer", Breaking)
    with running(bundle, store, updater_config(kafka, batch_clicks=10), feast_sink=False):
        produce(kafka, clicks)
        eventually(lambda: everything_counted(kafka, bundle, clicks), "all clicks are folded", 60)
    assert next(broken) > 5
    assert_counted_once(kafka, bundle, clicks)
    reference = one_thread_reference(bundle, clicks)
    for key, row in committed(kafka, "query", bundle).items():
        np.testing.assert_allclose(np.reshape(row["a"], reference[key].shape), reference[key], atol=1e-5, err_msg=key)


def test_two_workers_a_stage_share_the_partitions_and_take_over(kafka, store):
    bundle, clicks = tiny_bundle(next(VERSION)), some_clicks(200)
    first = updater_config(kafka, instance="a", session_timeout_ms=6_000)
    second = first.model_copy(update={"instance": "b"})
    with running(bundle, store, first, feast_sink=False):
        produce(kafka, clicks[:60])
        with running(bundle, store, second, feast_sink=False):
            produce(kafka, clicks[60:120])
            eventually(lambda: everything_counted(kafka, bundle, clicks[:120]), "two workers fold their shares")
        # b is gone: after the session timeout its partitions come back to a.
        produce(kafka, clicks[120:])
        eventually(lambda: everything_counted(kafka, bundle, clicks), "the first takes over", 60)
    assert_counted_once(kafka, bundle, clicks)


def test_the_broker_is_killed_and_comes_back(broker, kafka, store):
    bundle, clicks = tiny_bundle(next(VERSION)), some_clicks(200)
    with running(bundle, store, updater_config(kafka, batch_clicks=5), feast_sink=False):
        produce(kafka, clicks)
        eventually(lambda: sum(folded(kafka, "query", bundle).values()) > 0, "the first are folded")
        broker.kill()
        broker.start()
        eventually(lambda: everything_counted(kafka, bundle, clicks), "all clicks are folded", 90)
    assert_counted_once(kafka, bundle, clicks)


def test_a_second_process_of_the_same_name_takes_over_and_the_first_says_so(kafka, store):
    bundle, config = tiny_bundle(next(VERSION)), updater_config(kafka, session_timeout_ms=6_000)
    options = {"stages": ("query",), "feast_sink": False}
    with (
        pytest.raises(WorkerError, match="give each its own instance name"),
        running(bundle, store, config, **options) as failed,
        running(bundle, store, config, **options),
    ):
        clicks = some_clicks(60)
        produce(kafka, clicks)
        by_query, _ = truth(clicks)
        folds(kafka, "query", bundle, by_query, "the second folds the clicks")
        eventually(lambda: bool(failed) or produce(kafka, some_clicks(1)), "the first is told")


def test_it_stops_though_the_broker_is_gone(spare_broker, store):
    bundle, kafka = tiny_bundle(next(VERSION)), fresh_topics(spare_broker)
    with running(bundle, store, updater_config(kafka), feast_sink=False):
        produce(kafka, some_clicks(5))
        spare_broker.kill()
        began = time.monotonic()
    assert time.monotonic() - began < 30
