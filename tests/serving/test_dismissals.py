"""A dismissed item is in none of its query's answers, and in everybody else's."""

import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from feature_repo.event_rule import EventRule
from serving.service import Service
from tests.serving.conftest import PATIENT, Running, http, serve_http, updater
from tests.streaming.loop import committed, produce, updater_config
from tests.tiny import CUT_MS, tiny_bundle, tiny_store

RULE = EventRule(events={"buy": 2.0, "view": 1.0, "dismiss": -1.0})
ALL = {"n": 60, "exclude_seen": False}


def bundle_of(version: str, seed: int = 0):
    bundle = tiny_bundle(version, queries=6, items=60, seed=seed)
    bundle.manifest.rule = RULE
    return bundle


@pytest.fixture
def dismissing(kafka, tmp_path):
    """The service and the updater of a bundle whose card knows events against an item."""
    bundle, store, config = bundle_of("one"), tiny_store(tmp_path, queries=8, items=60), updater_config(kafka)
    service = Service(bundle, store, config, tmp_path, PATIENT)
    with updater(bundle, store, config), serve_http(service, store, bundle, kafka) as serving:
        yield serving


def shown(running: Running, query_id: str, url: str = "", **more) -> list[str]:
    reply = running.client.get(f"{url}/v1/retrieve", params={"query_id": query_id, **ALL, **more})
    assert reply.status_code == 200, reply.text
    return [item["item_id"] for item in reply.json()["items"]]


def say(running: Running, query_id: str, item_id: str, event_type: str) -> str:
    body = {"query_id": query_id, "item_id": item_id, "event_type": event_type}
    return running.client.post("/v1/clicks", json=body).json()["token"]


@pytest.mark.parametrize("query_id", ["q0", "nobody-knows-me"])
def test_a_dismissed_item_is_left_out_at_once_and_nothing_of_the_query_changes(dismissing: Running, query_id: str):
    """For a query with clicks, and for one that is answered by what is popular; pinned or not."""
    before = shown(dismissing, query_id)
    token = say(dismissing, query_id, before[0], "dismiss")
    assert shown(dismissing, query_id) == before[1:]
    reply = dismissing.client.get(
        "/v1/retrieve", params={"query_id": query_id, **ALL, "wait_for": token, "timeout_ms": 10_000}
    ).json()
    assert reply["reached"] and [item["item_id"] for item in reply["items"]] == before[1:]
    assert reply["clicks"] == (3 if query_id == "q0" else 0)
    assert query_id not in committed(dismissing.kafka, "query", dismissing.bundle)
    pinned = {"query_ids": [query_id, "q2"], "pinned": [before[0]], **ALL}
    mine, other = dismissing.client.post("/v1/retrieve", json=pinned).json()["answers"]
    assert before[0] not in [item["item_id"] for item in mine["items"]] and other["items"][0]["item_id"] == before[0]
    assert before[0] in shown(dismissing, query_id, static=True), "as of the last night it was not dismissed"


def test_a_click_of_the_item_after_it_takes_a_dismissal_back(dismissing: Running):
    def waited(query_id: str, item_id: str, event_type: str) -> list[str]:
        token = say(dismissing, query_id, item_id, event_type)
        return shown(dismissing, query_id, wait_for=token, timeout_ms=10_000)

    item = shown(dismissing, "q1")[0]
    assert item in waited("q1", item, "view")
    assert item not in waited("q1", item, "dismiss")
    assert item not in waited("q1", "i9" if item != "i9" else "i8", "view")
    dismissing.wait(lambda: all(one.clicks is not None for one in dismissing.service.dismissed._known["q1"].values()))
    assert item in waited("q1", item, "view")
    assert item not in waited("q1", item, "dismiss")


def test_dismissals_on_the_topic_hold_in_all_processes_after_restarts_for_other_bundles_until_forgotten(
    kafka, tmp_path
):
    from model.click import Click

    store, config = tiny_store(tmp_path, queries=8, items=60), updater_config(kafka)
    one, two = bundle_of("one"), bundle_of("two", seed=1)
    first, other = (Service(one, store, config, tmp_path, PATIENT) for _ in range(2))
    event = Click(event_id="e", query_id="q0", item_id="i7", event_time=CUT_MS + 1, event_type="dismiss")
    gone = lambda running, url="": "i7" not in shown(running, "q0", url)  # noqa: E731
    with updater(one, store, config), serve_http(first, store, one, kafka) as running, http(other) as url:
        assert not gone(running) and not gone(running, url)
        produce(kafka, [event])
        running.wait(lambda: gone(running) and gone(running, url))
        produce(kafka, [event.model_copy(update={"item_id": "i8"})])  # the same event again is none
        produce(kafka, [event.model_copy(update={"event_id": "f", "item_id": "i9"})])
        running.wait(lambda: "i9" not in shown(running, "q0"))
        assert "i8" in shown(running, "q0")
    again = Service(two, store, config, tmp_path, PATIENT)
    with serve_http(again, store, two, kafka) as later:
        later.wait(lambda: later.client.get("/readyz").status_code == 200)
        assert gone(later)
        later.service._swap(later.service._prepare(one))
        assert gone(later) and "i7" in shown(later, "q2")
        assert later.client.delete("/v1/queries/q0").status_code == 200
        assert shown(later, "q0") == shown(later, "somebody-new"), "a new visitor has dismissed nothing"


def test_an_answer_that_waits_for_a_dismissal_waits_until_its_own_process_has_read_it(kafka, tmp_path):
    store, config, bundle = tiny_store(tmp_path, queries=8, items=60), updater_config(kafka), bundle_of("one")
    first, other = (Service(bundle, store, config, tmp_path, PATIENT) for _ in range(2))
    go_on, take = threading.Event(), other.dismissed.apply
    other.dismissed.apply = lambda record: (go_on.wait(60), take(record))
    with updater(bundle, store, config), serve_http(first, store, bundle, kafka) as running, http(other) as url:
        running.wait(lambda: other.dismissed.caught_up and first.dismissed.caught_up)
        token = say(running, "q0", "i7", "dismiss")
        asked = {"query_id": "q0", **ALL, "wait_for": token}
        ask = lambda base, ms: httpx.get(  # noqa: E731
            f"{base}/v1/retrieve", params={**asked, "timeout_ms": ms}, timeout=60
        ).json()
        items = lambda reply: [item["item_id"] for item in reply["items"]]  # noqa: E731
        here = ask(running.url, 20_000)
        assert here["reached"] and "i7" not in items(here)
        early = ask(url, 500)
        assert not early["reached"] and "i7" in items(early), "it has not been read here"
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(ask, url, 20_000)
            running.wait(lambda: other.batcher.held)
            go_on.set()
            late = waiting.result(60)
        assert late["reached"] and "i7" not in items(late)


def test_a_dismissal_holds_for_as_long_as_the_setting_says_and_of_many_the_newest_hold(kafka, tmp_path):
    bundle, store = bundle_of("one"), tiny_store(tmp_path, items=60)
    config = PATIENT.model_copy(update={"dismissed_days": 1.0})
    service = Service(bundle, store, kafka, tmp_path, config)
    with serve_http(service, store, bundle, kafka) as running:
        now = service.clock.now_ms()
        for item, age in (("i1", 86_400_000 + 60_000), ("i2", 60_000)):
            body = {"query_id": "q1", "item_id": item, "event_type": "dismiss", "event_time": now - age}
            assert running.client.post("/v1/clicks", json=body).status_code == 202
        assert "i1" in shown(running, "q1") and "i2" not in shown(running, "q1")
        for k in range(110):
            say(running, "q1", f"x{k}", "dismiss")
        assert len(service.dismissed._known["q1"]) == 100 and "i2" in shown(running, "q1")
