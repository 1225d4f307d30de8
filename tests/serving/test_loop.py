"""The loop: a click posted over HTTP changes the answer, through the real broker, updater and online store."""

import time

import pytest

from tests.serving.conftest import Running


def click_and_ask(loop: Running, query_id: str, item_id: str) -> tuple[dict, float]:
    began = time.perf_counter()
    posted = loop.client.post("/v1/clicks", json={"query_id": query_id, "item_id": item_id}).json()
    asked = {"query_id": query_id, "n": 20, "wait_for_clicks": posted["wait_for_clicks"], "timeout_ms": 10_000}
    answer = loop.client.get("/v1/retrieve", params=asked).json()
    assert answer["reached"], answer
    return answer, time.perf_counter() - began


@pytest.mark.parametrize("query_id", ["q0", "q1", "q7", "somebody-new"])
def test_a_click_changes_the_next_answer_within_a_second(loop: Running, query_id: str):
    """For a busy query, one without clicks, one that only the catalogue knows, and one that nobody knows."""
    click_and_ask(loop, "warm", "i1")
    before = loop.client.get("/v1/retrieve", params={"query_id": query_id, "n": 20}).json()
    clicked = before["items"][0]["item_id"]
    answer, seconds = click_and_ask(loop, query_id, clicked)
    assert seconds < 1
    assert answer["clicks"] == before["clicks"] + 1 and answer["folded"] == before["folded"] + 1
    assert answer["source"] == "stream"
    found = [item["item_id"] for item in answer["items"]]
    assert clicked not in found and found != [item["item_id"] for item in before["items"]]


def test_thirty_clicks_in_a_row_each_show_in_the_next_answer(loop: Running):
    """Not once may an answer that counts a click lack it in its history or in its vector."""
    seconds, seen = [], []
    for k in range(30):
        answer, took = click_and_ask(loop, "walker", f"i{k}")
        seconds.append(took)
        seen.append(f"i{k}")
        assert (answer["clicks"], answer["folded"]) == (k + 1, k + 1), answer
        if k < 4:  # the history holds a query's latest four clicks
            assert not set(seen) & {item["item_id"] for item in answer["items"]}
    latest = ["i29", "i28", "i27", "i26"]
    loop.wait(
        lambda: [item["item_id"] for item in loop.client.get("/v1/queries/walker/clicks").json()] == latest, timeout_s=2
    )
    assert sorted(seconds)[15] < 0.5


def test_an_item_that_nobody_knew_is_found_after_its_first_click(loop: Running):
    click_and_ask(loop, "q2", "never-heard-of")
    loop.wait(lambda: loop.service.retriever.served.corpus.row("never-heard-of") is not None, 5)
    answer = loop.client.get("/v1/retrieve", params={"query_id": "q4", "n": 100}).json()
    assert "never-heard-of" in [item["item_id"] for item in answer["items"]]
    item = loop.client.get("/v1/items/never-heard-of").json()
    assert item["clicks"] == 1 and item["in_index"]
