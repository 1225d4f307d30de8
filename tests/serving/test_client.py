"""The Python client against the real loop, and against what the service refuses."""

import json
import random

import pytest

from serving.client import Client, RequestRefused
from tests.serving.conftest import Running


def test_click_and_retrieve_counts_the_click(loop: Running):
    with Client(loop.url) as dat:
        before = dat.retrieve("q0", n=10)
        clicked = before.items[0].item_id
        after = dat.click_and_retrieve("q0", clicked, n=10, timeout_ms=10_000)
        assert after.reached and after.clicks == before.clicks + 1
        assert clicked not in [item.item_id for item in after.items]
        both = dat.retrieve_many(["q0", "q5"], n=3, category="war")
        assert [answer.query_id for answer in both] == ["q0", "q5"]
        assert dat.click("q0", "a/b ?#ü").wait_for_clicks == after.clicks + 1
        loop.wait(lambda: loop.service.retriever.served.corpus.row("a/b ?#ü") is not None)
        assert dat.item("a/b ?#ü").clicks == 1


def test_what_is_refused_is_raised_with_its_reason(running: Running):
    with Client(running.url) as dat:
        with pytest.raises(RequestRefused, match="less than or equal to 1000") as refused:
            dat.retrieve("q0", n=2_000)
        assert (refused.value.status, refused.value.code) == (422, "not-valid")
        with pytest.raises(RequestRefused, match="knows this item") as missing:
            dat.item("never-seen")
        assert missing.value.status == 404


JSON = {"Content-Type": "application/json"}


def test_a_thousand_hostile_requests_break_nothing(running: Running):
    """Random paths, parameters and bodies: every answer is one, and none is the server's fault."""
    rng = random.Random(0)
    paths = ["retrieve", "clicks", "items/x", "queries", "queries/x/clicks", "categories", "map", "progress", "status"]
    names = [
        "query_id",
        "n",
        "at",
        "exclude_seen",
        "category",
        "details",
        "wait_for_clicks",
        "limit",
        "prefix",
        "query_ids",
    ]
    values = [
        "",
        "q0",
        "0",
        "-1",
        "1e999",
        "NaN",
        "null",
        "true",
        "[]",
        "9" * 40,
        "\x00",
        "'; --",
        "../" * 20,
        "💥" * 70,
        "x" * 3000,
    ]
    bodies = [None, True, -1, 1e308, "", "q0", "x" * 3000, [], ["q0"] * 101, {}, {"a": {}}, [[[]]], "\ud800"]

    def body() -> object:
        return {
            rng.choice([*names, "item_id", "event_time", "context"]): rng.choice(bodies)
            for _ in range(rng.randrange(5))
        }

    worst = 0
    for _ in range(1_000):
        params = {rng.choice(names): rng.choice(values) for _ in range(rng.randrange(4))}
        params["timeout_ms"] = "50"
        content = body() if rng.random() < 0.9 else rng.choice(bodies)
        reply = running.client.request(
            rng.choice(["GET", "GET", "POST", "PUT", "DELETE", "OPTIONS"]),
            f"/v1/{rng.choice(paths)}",
            params=params,
            content=json.dumps(content),
            headers=JSON,
        )
        worst = max(worst, reply.status_code)
    assert worst < 500
    assert running.client.get("/readyz").status_code == 200
