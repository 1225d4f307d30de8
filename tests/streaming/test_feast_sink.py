"""What the stages commit can be read through the Feast SDK."""

import sqlite3
import time

import numpy as np
import pandas as pd
import pytest
from kafka import TopicPartition

from model.click import Click
from streaming.sink.feast_sink import marker, refill, whole
from streaming.sink.online_writer import OnlineWriter
from tests.conftest import PARTITIONS
from tests.streaming.loop import committed, eventually, folded, produce, running, some_clicks, truth, updater_config
from tests.tiny import CUT_MS, tiny_bundle, tiny_store

VIEWS = {
    "query": ["query_activity", "query_augmented", "query_history"],
    "item": ["item_activity", "item_augmented"],
}


def online(store, side: str, ids: list[str]) -> list[dict]:
    """All that the stream's views hold of some ids."""
    names = [f"{view}:{field.name}" for view in VIEWS[side] for field in store.get_feature_view(view).features]
    columns = store.get_online_features(features=names, entity_rows=[{f"{side}_id": key} for key in ids]).to_dict()
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def in_store(store, bundle, clicks) -> bool:
    """Whether the store holds every id, of this bundle alone, with every click."""
    for side, table, counts in zip(("query", "item"), (bundle.queries, bundle.items), truth(clicks), strict=True):
        before = dict(zip(table.ids, table.update_count.tolist(), strict=True))
        for key, row in zip(ids := [*before.keys() | counts.keys()], online(store, side, ids), strict=True):
            if (row["bundle"], row["folded"]) != (bundle.version, before.get(key, 0) + counts.get(key, 0)):
                return False
    return True


def assert_same(row: dict, expected: dict, bundle) -> None:
    for name in ("clicks", "folded", "last_click"):
        assert row[name] == expected[name]
    for name in ("a", "counters"):
        np.testing.assert_allclose(row[name], np.ravel(expected[name]), rtol=1e-6)
    assert row["bundle"] == bundle.version


def test_the_sink_can_be_a_process_of_its_own(kafka, tmp_path):
    store, bundle, clicks = tiny_store(tmp_path, queries=9, items=12), tiny_bundle("apart"), some_clicks(60)
    with (
        running(bundle, store, updater_config(kafka), feast_sink=False),
        running(bundle, store, updater_config(kafka, instance="sink"), stages=()),
    ):
        produce(kafka, clicks)
        eventually(lambda: in_store(store, bundle, clicks), "the store has every click")


def test_the_store_has_the_bundles_state_first_and_every_click_after(kafka, tmp_path):
    store, bundle = tiny_store(tmp_path, queries=9, items=12), tiny_bundle("sink-1")
    clicks = some_clicks(100)
    with running(bundle, store, updater_config(kafka)):
        for side, table in (("query", bundle.queries), ("item", bundle.items)):
            for k, row in enumerate(online(store, side, table.ids)):
                expected = {name: getattr(table, name)[k] for name in ("clicks", "last_click", "a", "counters")}
                assert_same(row, expected | {"folded": table.update_count[k]}, bundle)
        first = online(store, "query", ["q0"])[0]["history"]
        assert first == [bundle.items.ids[row] for row in bundle.queries.recent_items[0, :3]]
        produce(kafka, clicks)
        by_query, by_item = truth(clicks)
        for side, count in (("query", by_query), ("item", by_item)):
            eventually(lambda side=side, count=count: folded(kafka, side, bundle) == count, "folded")
            expected = committed(kafka, side, bundle)
            ids = list(expected)
            eventually(
                lambda side=side, ids=ids, expected=expected: (
                    [row["folded"] for row in online(store, side, ids)] == [expected[key]["folded"] for key in ids]
                ),
                "the store has caught up",
            )
            for key, row in zip(ids, online(store, side, ids), strict=True):
                assert_same(row, expected[key], bundle)
                if side == "query":
                    assert row["history"] == expected[key]["history"]


def test_nothing_is_lost_while_the_store_refuses(kafka, tmp_path, monkeypatch):
    store, bundle, clicks = tiny_store(tmp_path, queries=9, items=12), tiny_bundle("sink-2"), some_clicks(60)

    write, refusing = OnlineWriter.write, []

    def refuse(self, side, rows, stamps):
        if refusing and len(refusing) < 6:
            refusing.append(side)
            raise ConnectionError("the store is away")
        write(self, side, rows, stamps)

    monkeypatch.setattr(OnlineWriter, "write", refuse)
    with running(bundle, store, updater_config(kafka)):
        refusing.append("from now on")
        produce(kafka, clicks)
        by_query, _ = truth(clicks)
        before = dict(zip(bundle.queries.ids, bundle.queries.update_count.tolist(), strict=True))
        ids = list(by_query)
        eventually(
            lambda: (
                [row["folded"] for row in online(store, "query", ids)]
                == [before.get(key, 0) + by_query[key] for key in ids]
            ),
            "the store has caught up",
        )
    assert len(refusing) == 6


def test_a_click_goes_before_what_is_left_of_a_new_bundle_and_is_not_undone_by_it(kafka, tmp_path, monkeypatch):
    store, bundle = tiny_store(tmp_path, queries=9, items=12), tiny_bundle("sink-4")
    last = bundle.queries.ids[-1]
    before = int(bundle.queries.update_count[-1])

    write, written, seen = OnlineWriter.write, [], []

    def slow(self, side, rows, stamps):
        if not written:
            produce(kafka, [Click(event_id="early", query_id=last, item_id="i0", event_time=CUT_MS + 1)])
        write(self, side, rows, stamps)
        written.append((side, rows["id"].to_pylist(), rows["folded"].to_pylist()))
        if (side, [last], [before + 1]) in written:
            seen.append(len(written))
        elif len(written) < 15:
            time.sleep(0.5)  # the click comes meanwhile

    monkeypatch.setattr(OnlineWriter, "write", slow)
    with running(bundle, store, updater_config(kafka, sink_rows=1)):
        assert {key for _, ids, _ in written for key in ids} >= {*bundle.queries.ids, *bundle.items.ids}
        assert seen[0] < len(bundle.queries.ids) + 1, written
        assert online(store, "query", [last])[0]["folded"] == before + 1


@pytest.mark.parametrize("side", ["query", "item"])
def test_a_service_reads_what_its_tower_reads(kafka, tmp_path, side):
    store, bundle = tiny_store(tmp_path), tiny_bundle("sink-3")
    with running(bundle, store, updater_config(kafka)):
        service = store.get_feature_service(f"{side}_tower")
        table = bundle.queries if side == "query" else bundle.items
        answer = store.get_online_features(features=service, entity_rows=[{f"{side}_id": table.ids[0]}]).to_dict()
    assert set(answer) - {f"{side}_id"} == {name.split("__")[1] for name in bundle.manifest.services[f"{side}_tower"]}
    assert all(value[0] is not None for value in answer.values())


def test_feast_materialize_does_not_take_the_streams_rows_back(kafka, tmp_path):
    store, bundle, clicks = tiny_store(tmp_path, queries=9, items=12), tiny_bundle("sink-5"), some_clicks(40)
    with running(bundle, store, updater_config(kafka)):
        produce(kafka, clicks)
        eventually(lambda: in_store(store, bundle, clicks), "the store has all clicks")
    ids = bundle.queries.ids
    frame = pd.DataFrame(
        {"query_id": ids, "a": [[0.0]] * len(ids), "folded": [0] * len(ids), "bundle": ["a night"] * len(ids)}
    )
    frame["event_timestamp"] = frame["created_timestamp"] = pd.Timestamp(CUT_MS, unit="ms", tz="UTC")
    store.write_to_online_store("query_augmented", frame)
    assert in_store(store, bundle, clicks)


def test_a_sink_on_a_host_whose_clock_was_ahead_leaves_nothing_that_the_next_one_cannot_replace(
    kafka, tmp_path, monkeypatch
):
    store, bundle, clicks = tiny_store(tmp_path, queries=9, items=12), tiny_bundle("sink-6"), some_clicks(80)
    now = time.time
    with monkeypatch.context() as ahead:
        ahead.setattr("streaming.sink.feast_sink.time.time", lambda: now() + 3_600)
        with running(bundle, store, updater_config(kafka, instance="a")):
            produce(kafka, clicks[:40])
            eventually(lambda: in_store(store, bundle, clicks[:40]), "the store has the first clicks")
    with running(bundle, store, updater_config(kafka, instance="b")):
        produce(kafka, clicks[40:])
        eventually(lambda: in_store(store, bundle, clicks), "the store has all clicks", 60)


def test_what_a_frozen_sink_writes_late_is_refused(kafka, tmp_path):
    """The rows of its last batch, as they were before another sink took its partition over."""
    store, bundle, clicks = tiny_store(tmp_path, queries=9, items=12), tiny_bundle("sink-7"), some_clicks(80)
    late, write = [], OnlineWriter.write
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(OnlineWriter, "write", lambda *given: late.append(given) or write(*given))
        with running(bundle, store, updater_config(kafka, instance="a")):
            produce(kafka, clicks[:40])
            eventually(lambda: in_store(store, bundle, clicks[:40]), "the store has the first clicks")
    with running(bundle, store, updater_config(kafka, instance="b")):
        produce(kafka, clicks[40:])
        eventually(lambda: in_store(store, bundle, clicks), "the store has all clicks", 60)
    writer = OnlineWriter(store, bundle.version)
    for _, *given in late:
        writer.write(*given)
    assert in_store(store, bundle, clicks)


def test_what_a_replaced_sink_with_a_clock_ahead_writes_late_is_written_over(kafka, tmp_path):
    """It has the partition's marker and older rows, both with stamps of an hour from now."""
    store, bundle, clicks = tiny_store(tmp_path, queries=9, items=12), tiny_bundle("sink-9"), some_clicks(80)
    late, write, ahead = [], OnlineWriter.write, 3_600_000_000
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(OnlineWriter, "write", lambda *given: late.append(given) or write(*given))
        with running(bundle, store, updater_config(kafka, monitor_s=0.2)):
            produce(kafka, clicks[:40])
            eventually(lambda: in_store(store, bundle, clicks[:40]), "the store has the first clicks")
            written = list(late)
            produce(kafka, clicks[40:])
            eventually(lambda: in_store(store, bundle, clicks), "the store has all clicks")
            writer = OnlineWriter(store, bundle.version)
            for _, side, rows, stamps in written:
                write(writer, side, rows, stamps + ahead)
            for topic in (kafka.topics.query_vectors, kafka.topics.item_vectors):
                for name in (marker(TopicPartition(topic, p)) for p in range(PARTITIONS)):
                    writer.write_marker(name, (writer.read_marker(name) or 0) + 2 * ahead)
            eventually(lambda: in_store(store, bundle, clicks), "the store has all clicks again")


def test_a_store_is_refilled_on_request(kafka, tmp_path):
    store, bundle, clicks = tiny_store(tmp_path, queries=9, items=12), tiny_bundle("sink-8"), some_clicks(30)
    config = updater_config(kafka, monitor_s=0.2)
    with running(bundle, store, config):
        produce(kafka, clicks)
        eventually(lambda: in_store(store, bundle, clicks), "the store has all clicks")
        with sqlite3.connect(store.config.online_store.path, timeout=10) as connection:
            connection.execute("DELETE FROM dat_query_augmented WHERE value_text IS NULL AND created_ts % 2 = 0")
        assert refill(store, config) == 2 * PARTITIONS
        eventually(lambda: whole(store, config) == (4, 4) and in_store(store, bundle, clicks), "and has them again")


def test_rows_that_another_release_wrote_in_another_format_are_written_anew(kafka, tmp_path, monkeypatch):
    store, bundle, clicks = tiny_store(tmp_path, queries=9, items=12), tiny_bundle("formats"), some_clicks(60)
    produce(kafka, clicks)
    with running(bundle, store, updater_config(kafka)):
        eventually(lambda: in_store(store, bundle, clicks), "the store has all clicks")
    for number in (1, 2):
        OnlineWriter(store, "erase").erase(["q1"])
        monkeypatch.setattr("streaming.sink.feast_sink.FORMAT", number)
        with running(bundle, store, updater_config(kafka)):
            if number == 2:
                eventually(lambda: in_store(store, bundle, clicks), "the store has all clicks again")
        assert (online(store, "query", ["q1"])[0]["bundle"] == bundle.version) == (number == 2)
