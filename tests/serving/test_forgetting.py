"""Forgetting a query: it holds in answers and in the online store when the call returns, and in every process."""

import time

import pytest

from model.forget_notes import taken_notes
from model.forgetting import Forgotten
from model.settings.serving import ApiKey, ServingConfig
from serving.service import Service
from streaming.forgetting import ForgetWriter, read_forgotten
from tests.serving.conftest import PATIENT, Running, http, serve_http, updater
from tests.serving.test_loop import click_and_ask
from tests.streaming.loop import committed, updater_config
from tests.tiny import tiny_bundle, tiny_store

ONLINE = [
    "query_activity:clicks", "query_history:history", "query_augmented:a", "query_profile:known", "query_profile:city",
]  # fmt: skip


def asked(client, query_id: str, url: str = "") -> dict:
    return client.get(f"{url}/v1/retrieve", params={"query_id": query_id, "n": 20}).json()


def unknown(client, query_id: str, url: str = "") -> bool:
    """Whether a query gets what somebody gets of whom nothing is known, and has no history."""
    there, nobody = asked(client, query_id, url), asked(client, "nobody-knows-me", url)
    told = ("items", "source", "fallback", "clicks", "update_count")
    same = all(there[name] == nobody[name] for name in told)
    return same and client.get(f"{url}/v1/queries/{query_id}/clicks").json() == []


def online(store, query_id: str) -> list:
    found = store.get_online_features(features=ONLINE, entity_rows=[{"query_id": query_id}]).to_dict()
    return [value for name, (value,) in found.items() if name != "query_id" and value is not None]


@pytest.mark.parametrize("query_id", ["q0", "q7", "somebody-new"])
def test_a_forgotten_query_is_an_unknown_visitor_when_the_call_returns_and_a_new_one_from_its_next_click_on(
    loop: Running, query_id: str
):
    """One that the bundle has, one that only the catalogue knows, and one that came by its clicks."""
    for k in range(3):
        click_and_ask(loop, query_id, f"i{k}")
    assert not unknown(loop.client, query_id) and online(loop.store, query_id)
    told = loop.client.delete(f"/v1/queries/{query_id}")
    assert told.status_code == 200 and told.json() == {"status": "forgotten"}, told.text
    assert unknown(loop.client, query_id)
    loop.wait(lambda: not online(loop.store, query_id))
    listed = loop.client.get("/v1/queries", params={"limit": 1000}).json()["query_ids"]
    assert query_id not in listed and listed
    answer, _ = click_and_ask(loop, query_id, "i9")
    assert (answer["clicks"], answer["update_count"], answer["source"]) == (1, 1, "stream")
    history = loop.client.get(f"/v1/queries/{query_id}/clicks").json()
    assert [item["item_id"] for item in history] == ["i9"]
    row = committed(loop.kafka, "query", loop.bundle)[query_id]
    fresh, _ = click_and_ask(loop, f"as-new-as-{query_id}", "i9")
    as_new = committed(loop.kafka, "query", loop.bundle)[f"as-new-as-{query_id}"]
    assert row["clicks"] == as_new["clicks"] == 1 and row["history"] == as_new["history"] == ["i9"]
    assert set(fresh) == set(answer)


def test_what_the_online_store_still_has_is_in_no_answer_while_no_updater_runs(kafka, tmp_path):
    """In every process, after a restart, and for other bundles."""
    store, config = tiny_store(tmp_path, queries=8, items=60), updater_config(kafka)
    one, two = tiny_bundle("one", items=60), tiny_bundle("two", items=60, seed=1)
    first, other = (Service(one, store, config, tmp_path, PATIENT) for _ in range(2))
    with updater(one, store, config), serve_http(first, store, one, kafka) as running:
        click_and_ask(running, "q0", "i1")
        assert asked(running.client, "q0")["source"] == "stream"
    first = Service(one, store, config, tmp_path, PATIENT)
    with serve_http(first, store, one, kafka) as running, http(other) as url:
        running.wait(lambda: asked(running.client, "q0", url)["source"] == "stream")
        rows = online(store, "q0")
        assert running.client.delete("/v1/queries/q0").status_code == 200
        assert unknown(running.client, "q0") and rows and not online(store, "q0")
        running.wait(lambda: unknown(running.client, "q0", url))
        # As a sink that was behind would: what it writes is from before.
        with updater_off_writes(store, one, "q0"):
            assert online(store, "q0") and unknown(running.client, "q0") and unknown(running.client, "q0", url)
        again = Service(two, store, config, tmp_path, PATIENT)
        with serve_http(again, store, two, kafka) as later:
            later.wait(lambda: later.client.get("/readyz").status_code == 200)
            assert unknown(later.client, "q0") and not unknown(later.client, "q2")
            later.service._swap(later.service._prepare(one))
            assert unknown(later.client, "q0")


class updater_off_writes:
    """A query's row of a bundle in the online store, with the newest stamp that there can be now."""

    def __init__(self, store, bundle, query_id: str):
        import numpy as np

        from streaming.sink.online_writer import OnlineWriter
        from streaming.sink.rows import seeds

        rows = next(iter(seeds(bundle, "query", 0, lambda rows, ids: np.zeros(len(rows), int), 100)))
        row = rows.slice(bundle.queries.ids.index(query_id), 1)
        OnlineWriter(store, bundle.version).write("query", row, np.array([time.time_ns() // 1_000]))

    def __enter__(self) -> None: ...
    def __exit__(self, *_: object) -> None: ...


def test_forgetting_needs_the_scope_operate_and_a_history_the_scope_history(kafka, tmp_path):
    keys = [
        ApiKey(name=scope, key=f"a-key-that-may-{scope}", scopes={scope})
        for scope in ("read", "click", "history", "operate")
    ]
    bundle, store = tiny_bundle(), tiny_store(tmp_path)
    service = Service(bundle, store, kafka, tmp_path, ServingConfig(keys=keys, store_timeout_ms=5_000))
    with serve_http(service, store, bundle, kafka) as running:
        for method, path, needed in (
            ("DELETE", "/v1/queries/q0", "operate"),
            ("GET", "/v1/queries/q0/clicks", "history"),
            ("GET", "/v1/queries", "history"),
        ):
            for scope in ("read", "click", "history", "operate"):
                reply = running.client.request(method, path, headers={"X-API-Key": f"a-key-that-may-{scope}"})
                assert reply.status_code == (200 if scope == needed else 403), (path, scope, reply.text)
            assert running.client.request(method, path).status_code == 401


def test_a_query_that_is_only_said_to_be_forgotten_is_hidden_until_its_moment_is_written(running: Running):
    writer = ForgetWriter(running.kafka)
    writer.hide(["q2"], running.service.clock.now_ms())
    running.wait(lambda: unknown(running.client, "q2"))
    assert read_forgotten(running.kafka)["q2"].offset is None
    listed, _ = writer.forget(["q2"], running.service.clock.now_ms())
    writer.close()
    assert isinstance(listed["q2"], Forgotten) and read_forgotten(running.kafka)["q2"] == listed["q2"]
    assert unknown(running.client, "q2")


def test_a_home_with_a_lake_gets_a_note_for_nights_without_kafka_and_one_that_is_read_only_costs_nothing(
    kafka, tmp_path, caplog
):
    bundle, store, lake = tiny_bundle(), tiny_store(tmp_path), tmp_path / "lake" / "clicks"
    service = Service(bundle, store, kafka, tmp_path, PATIENT)
    with serve_http(service, store, bundle, kafka) as running:
        assert running.client.delete("/v1/queries/q0").status_code == 200 and taken_notes(tmp_path) == ({}, [])
        lake.mkdir(parents=True)
        now = service.clock.now_ms()
        for query_id in ("q1", "a/b é", "q1"):
            assert running.client.delete(f"/v1/queries/{query_id}").status_code == 200
        listed, files = taken_notes(tmp_path)
        assert listed == {id_: Forgotten(before=now) for id_ in ("q1", "a/b é")} and len(files) == 2
        files[0].parent.rename(tmp_path / "away")
        files[0].parent.write_text("a file is in the way")
        assert running.client.delete("/v1/queries/q2").status_code == 200 and "no note" in caplog.text
