"""The loop: a click posted over HTTP changes the answer, through the real broker, updater and online store."""

import time
from contextlib import ExitStack

import httpx
import pytest

from serving.service import Service
from streaming.clicks import ClickWriter
from tests.serving.conftest import PATIENT, Running, http, updater
from tests.streaming.loop import updater_config
from tests.tiny import tiny_bundle, tiny_store


def click_and_ask(loop: Running, query_id: str, item_id: str, **click) -> tuple[dict, float]:
    began = time.perf_counter()
    posted = loop.client.post("/v1/clicks", json={"query_id": query_id, "item_id": item_id, **click}).json()
    params = {"query_id": query_id, "n": 20, "wait_for": posted["token"], "timeout_ms": 10_000}
    answer = loop.client.get("/v1/retrieve", params=params).json()
    assert answer["reached"], answer
    return answer, time.perf_counter() - began


def items(answer: dict) -> list[str]:
    return [item["item_id"] for item in answer["items"]]


@pytest.mark.parametrize("query_id", ["q0", "q1", "q7", "somebody-new"])
@pytest.mark.flaky(reruns=2)
def test_a_click_changes_the_next_answer_within_a_second(loop: Running, query_id: str):
    """For a busy query, one without clicks, one that only the catalogue knows, and one that nobody knows."""
    click_and_ask(loop, "warm", "i1")
    before = loop.client.get("/v1/retrieve", params={"query_id": query_id, "n": 20}).json()
    clicked = items(before)[0]
    answer, seconds = click_and_ask(loop, query_id, clicked)
    assert seconds < 1
    assert answer["clicks"] == before["clicks"] + 1 and answer["update_count"] == before["update_count"] + 1
    assert answer["source"] == "stream"
    assert clicked not in items(answer) and items(answer) != items(before)


@pytest.mark.flaky(reruns=2)
def test_thirty_clicks_in_a_row_each_show_in_the_next_answer(loop: Running):
    """Not once may an answer that counts a click lack it in its history or in its vector."""
    seconds, seen = [], []
    for k in range(30):
        answer, took = click_and_ask(loop, "walker", f"i{k}")
        seconds.append(took)
        seen.append(f"i{k}")
        assert (answer["clicks"], answer["update_count"]) == (k + 1, k + 1), answer
        if k < 4:  # the history holds a query's latest four clicks
            assert not set(seen) & set(items(answer))
    latest = ["i29", "i28", "i27", "i26"]
    loop.wait(
        lambda: [item["item_id"] for item in loop.client.get("/v1/queries/walker/clicks").json()] == latest, timeout_s=2
    )
    assert sorted(seconds)[15] < 0.5


@pytest.mark.flaky(reruns=2)
def test_a_repeated_event_counts_once_and_holds_up_neither_its_answer_nor_any_later_one(loop: Running):
    """A retry is what event ids are for: a wait that counts clicks would wait for one that never comes."""
    first, _ = click_and_ask(loop, "retrier", "i1", event_id="once")
    again, took = click_and_ask(loop, "retrier", "i1", event_id="once")
    assert again["clicks"] == first["clicks"] == 1 and took < 2
    for k in range(3):
        later, took = click_and_ask(loop, "retrier", f"i{k + 2}")
        assert later["clicks"] == k + 2 and took < 2


def test_a_click_written_to_kafka_by_somebody_else_can_be_waited_for(loop: Running):
    from model.click import Click

    writer = ClickWriter(loop.kafka)
    click = Click(event_id="direct", query_id="q5", item_id="i9", event_time=loop.service.clock.now_ms())
    written = writer.write(click)
    writer.close()
    params = {"query_id": "q5", "wait_for": f"{written.partition}:{written.offset}", "timeout_ms": 10_000}
    answer = loop.client.get("/v1/retrieve", params=params).json()
    assert answer["reached"] and "i9" not in items(answer)


def test_behind_two_processes_forty_of_forty_answers_that_say_reached_are(kafka, tmp_path):
    """Two quick clicks of one user go to different services; either answer must count both, or say that it does not."""
    bundle, store = tiny_bundle(queries=6, items=60), tiny_store(tmp_path, queries=8, items=60)
    with ExitStack() as stack:
        stack.enter_context(updater(bundle, store, updater_config(kafka)))
        services = [Service(bundle, store, kafka, tmp_path, PATIENT) for _ in range(2)]
        urls = [stack.enter_context(http(service)) for service in services]
        clients = [stack.enter_context(httpx.Client(base_url=url, timeout=30)) for url in urls]
        for k in range(40):
            query, clicked = f"user-{k}", (f"i{k % 50}", f"i{k % 50 + 1}")
            for item, client in zip(clicked, clients, strict=True):
                token = client.post("/v1/clicks", json={"query_id": query, "item_id": item}).json()["token"]
            params = {"query_id": query, "n": 60, "wait_for": token, "timeout_ms": 20_000}
            answer = clients[k % 2].get("/v1/retrieve", params=params).json()
            assert answer["reached"] and answer["clicks"] == 2
            assert not set(clicked) & set(items(answer))


def test_an_item_that_no_catalogue_knows_is_held_back_and_one_that_it_knows_is_not(loop: Running):
    for k in range(3):
        click_and_ask(loop, f"bot-{k}", "BUY-CHEAP-PILLS.example")
    click_and_ask(loop, "q2", "i65")  # came after the bundle
    loop.wait(lambda: "i65" in items(loop.client.get("/v1/retrieve?query_id=q4&n=100").json()), 5)
    loop.wait(lambda: loop.client.get("/v1/items/BUY-CHEAP-PILLS.example").status_code == 200, 5)
    pills = loop.client.get("/v1/items/BUY-CHEAP-PILLS.example").json()
    assert pills["held"] == ["unknown"] and not pills["in_index"]
    for query in ("q0", "q4", "bot-1", "nobody-knows-me"):
        answer = loop.client.get("/v1/retrieve", params={"query_id": query, "n": 100}).json()
        assert "BUY-CHEAP-PILLS.example" not in items(answer)
    assert loop.client.get("/v1/status").json()["index"]["held"] == 1
