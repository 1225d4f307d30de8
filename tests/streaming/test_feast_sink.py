"""What the stages commit can be read through the Feast SDK."""

import time

import numpy as np
import pytest

from feature_repo.click_event import Click
from streaming.config import UpdaterConfig
from streaming.topics import ITEM_VECTORS, QUERY_VECTORS
from tests.streaming.loop import committed, eventually, folded, produce, running, some_clicks, truth
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


def assert_same(row: dict, expected: dict, bundle) -> None:
    for name in ("clicks", "folded", "last_click"):
        assert row[name] == expected[name]
    for name in ("a", "counters"):
        np.testing.assert_allclose(row[name], np.ravel(expected[name]), rtol=1e-6)
    assert row["bundle"] == bundle.version


def test_the_store_has_the_bundles_state_first_and_every_click_after(bootstrap, tmp_path):
    store, bundle = tiny_store(tmp_path, queries=9, items=12), tiny_bundle("sink-1")
    clicks = some_clicks(100)
    with running(bundle, store, UpdaterConfig(bootstrap=bootstrap)):
        for side, table in (("query", bundle.queries), ("item", bundle.items)):
            for k, row in enumerate(online(store, side, table.ids)):
                names = ("clicks", "folded", "last_click", "a", "counters")
                assert_same(row, {name: getattr(table, name)[k] for name in names}, bundle)
        first = online(store, "query", ["q0"])[0]["history"]
        assert first == [bundle.items.ids[row] for row in bundle.queries.history[0, :3]]
        produce(bootstrap, clicks)
        by_query, by_item = truth(clicks)
        for side, topic, count in (("query", QUERY_VECTORS, by_query), ("item", ITEM_VECTORS, by_item)):
            eventually(lambda topic=topic, count=count: folded(bootstrap, topic, bundle) == count, "folded")
            expected = committed(bootstrap, topic, bundle)
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


def test_nothing_is_lost_while_the_store_refuses(bootstrap, tmp_path, monkeypatch):
    store, bundle, clicks = tiny_store(tmp_path, queries=9, items=12), tiny_bundle("sink-2"), some_clicks(60)
    from streaming.online_writer import OnlineWriter

    write, refusing = OnlineWriter.write, []

    def refuse(self, side, rows):
        if refusing and len(refusing) < 6:
            refusing.append(side)
            raise ConnectionError("the store is away")
        write(self, side, rows)

    monkeypatch.setattr(OnlineWriter, "write", refuse)
    with running(bundle, store, UpdaterConfig(bootstrap=bootstrap)):
        refusing.append("from now on")
        produce(bootstrap, clicks)
        by_query, _ = truth(clicks)
        before = dict(zip(bundle.queries.ids, bundle.queries.folded.tolist(), strict=True))
        ids = list(by_query)
        eventually(
            lambda: (
                [row["folded"] for row in online(store, "query", ids)]
                == [before.get(key, 0) + by_query[key] for key in ids]
            ),
            "the store has caught up",
        )
    assert len(refusing) == 6


def test_a_click_goes_before_what_is_left_of_a_new_bundle_and_is_not_undone_by_it(bootstrap, tmp_path, monkeypatch):
    store, bundle = tiny_store(tmp_path, queries=9, items=12), tiny_bundle("sink-4")
    last = bundle.queries.ids[-1]
    before = int(bundle.queries.folded[-1])
    from streaming.online_writer import OnlineWriter

    write, written, seen = OnlineWriter.write, [], []

    def slow(self, side, rows):
        if not written:
            produce(bootstrap, [Click(event_id="early", query_id=last, item_id="i0", event_time=CUT_MS + 1)])
        write(self, side, rows)
        written.append((side, rows["id"].to_pylist(), rows["folded"].to_pylist()))
        if (side, [last], [before + 1]) in written:
            seen.append(len(written))
        elif len(written) < 15:
            time.sleep(0.5)  # the click comes meanwhile

    monkeypatch.setattr(OnlineWriter, "write", slow)
    with running(bundle, store, UpdaterConfig(bootstrap=bootstrap, sink_rows=1)):
        assert {key for _, ids, _ in written for key in ids} == {*bundle.queries.ids, *bundle.items.ids}
        assert seen[0] < len(bundle.queries.ids) + 1, written
        assert online(store, "query", [last])[0]["folded"] == before + 1
        assert [counts for side, ids, counts in written if ids == [last]] == [[before + 1]]


@pytest.mark.parametrize("side", ["query", "item"])
def test_a_service_reads_what_its_tower_reads(bootstrap, tmp_path, side):
    store, bundle = tiny_store(tmp_path), tiny_bundle("sink-3")
    with running(bundle, store, UpdaterConfig(bootstrap=bootstrap)):
        service = store.get_feature_service(f"{side}_tower")
        table = bundle.queries if side == "query" else bundle.items
        answer = store.get_online_features(features=service, entity_rows=[{f"{side}_id": table.ids[0]}]).to_dict()
    assert set(answer) - {f"{side}_id"} == {name.split("__")[1] for name in bundle.manifest.services[f"{side}_tower"]}
    assert all(value[0] is not None for value in answer.values())
