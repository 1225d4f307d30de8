"""The HTTP API on a real server: right answers to right requests, 4xx to the others."""

import json

import numpy as np
import pytest
from kafka import KafkaConsumer

from model.click import Click
from tests.serving.conftest import Running, item_rows
from tests.tiny import WIDTH


def test_answer_names_its_bundle_and_leaves_out_what_was_seen(running: Running):
    answer = running.client.get("/v1/retrieve", params={"query_id": "q0", "n": 60, "details": True}).json()
    assert answer["bundle"] == running.bundle.version
    assert answer["source"] == "bundle" and answer["fallback"] is None
    assert answer["clicks"] == 3
    seen = {running.bundle.items.ids[row] for row in running.bundle.queries.recent_items[0] if row >= 0}
    found = [item["item_id"] for item in answer["items"]]
    assert len(found) == len(set(found)) == 60 - len(seen)
    assert not seen & set(found)
    assert all(item["title"].startswith("Film ") and item["because"] for item in answer["items"])
    scores = [item["score"] for item in answer["items"]]
    assert scores == sorted(scores, reverse=True)


def test_posted_click_reaches_the_topic_whole(running: Running):
    reply = running.client.post(
        "/v1/clicks",
        json={"query_id": "q1", "item_id": "i3", "event_type": "rating", "value": 4.5, "context": {"page": "home"}},
    )
    assert reply.status_code == 202
    consumer = KafkaConsumer(
        running.kafka.topics.clicks, **running.kafka.client,
        auto_offset_reset="earliest", group_id=None, consumer_timeout_ms=5000,
    )  # fmt: skip
    record = next(record for record in consumer if reply.json()["event_id"].encode() in record.value)
    consumer.close()
    click = Click.model_validate_json(record.value)
    assert (click.event_id, click.item_id, click.context) == (reply.json()["event_id"], "i3", {"page": "home"})
    assert (click.event_type, click.value) == ("rating", 4.5)


def test_a_new_item_that_the_catalogue_knows_is_found_within_a_second_under_its_name_and_categories(running: Running):
    params = {"query_id": "q2", "n": 1, "details": True, "category": "comedy"}
    before = running.client.get("/v1/retrieve", params=params).json()["items"][0]
    running.publish(item_rows(["i60"], 100 * running.bundle.items.vectors[[int(before["item_id"][1:])]]))
    shown = lambda: running.client.get("/v1/retrieve", params=params).json()["items"][0]  # noqa: E731
    running.wait(lambda: shown()["item_id"] == "i60", 1.5)
    item = shown()
    assert (item["title"], item["category"]) == ("Film 60", ["drama", "comedy"])
    assert item["score"] > before["score"]
    assert running.client.get("/v1/items/i60").json()["in_index"] is True
    assert running.client.get("/v1/categories").json()["drama"] == 41


BAD_QUESTIONS = [
    {},
    {"query_id": ""},
    {"query_id": "q0", "n": 0},
    {"query_id": "q0", "n": 1001},
    {"query_id": "q0", "n": "ten"},
    {"query_id": "q0", "n": 10**30},
    {"query_id": "q0", "at": -1},
    {"query_id": "q0", "at": 1_700_000_000},  # seconds, not milliseconds
    {"query_id": "q0", "n": "2.0"},
    {"query_id": "q0", "wait_for": "-1:5"},
    {"query_id": "q0", "wait_for": 17},
    {"query_id": "q0", "wait_for": f"1:{10**30}"},
    {"query_id": "q0", "where": "{"},
    {"query_id": "q0", "where": '{"genres": {"some": ["war"]}}'},
    {"query_id": "q0", "timeout_ms": 10**9},
    {"query_id": "q0", "category": ""},
    {"query_id": "x" * 257},
]
CLICK = {"query_id": "q0", "item_id": "i1"}
BAD_CLICKS = [
    b"",
    b"{",
    b"null",
    b"[]",
    b"\xff\xfe\x00",
    b'"' + b"a" * 1000,
    b"[" * 10_000,
    b'{"query_id": "\\ud800", "item_id": "i1"}',
    {},
    {"query_id": "q0"},
    {**CLICK, "query_id": 7},
    {**CLICK, "item_id": None},
    {**CLICK, "item_id": ""},
    {**CLICK, "item_id": "x" * 257},
    {**CLICK, "event_time": "yesterday"},
    {**CLICK, "event_time": 1.5},
    {**CLICK, "event_time": 0},
    {**CLICK, "event_time": 4_000_000_000_000},  # in the future: the stream would set it aside
    {**CLICK, "event_id": ""},
    {**CLICK, "context": {"a": {"b": 1}}},
    {**CLICK, "context": {str(k): k for k in range(33)}},
    {**CLICK, "unknown": 1},
]


@pytest.mark.parametrize("params", BAD_QUESTIONS, ids=str)
def test_bad_questions_are_refused_with_a_sentence(running: Running, params):
    reply = running.client.get("/v1/retrieve", params=params)
    assert reply.status_code == 422
    assert reply.json()["code"] == "not-valid" and reply.json()["message"]


@pytest.mark.parametrize("body", BAD_CLICKS, ids=lambda body: str(body)[:40])
def test_bad_clicks_are_refused_and_never_reach_the_topic(running: Running, body):
    posted = running.service.clicks.posted
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    reply = running.client.post("/v1/clicks", content=content, headers={"Content-Type": "application/json"})
    assert reply.status_code == 422, reply.text
    assert set(reply.json()) == {"code", "message"}
    assert running.service.clicks.posted == posted


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_that_is_too_large_is_refused(running: Running, chunked):
    body = b'{"query_ids": ["' + b"x" * 300_000 + b'"]}'
    content = (body[at : at + 50_000] for at in range(0, len(body), 50_000)) if chunked else body
    reply = running.client.post("/v1/retrieve", content=content, headers={"Content-Type": "application/json"})
    assert reply.status_code == 413 and reply.json()["code"] == "too-large"
    assert running.client.get("/healthz").status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("GET", "/v1/items/nobody-knows-it", 404),
        ("GET", "/v1/items/..%2f..%2fetc%2fpasswd", 404),
        ("GET", "/page/..%2f..%2fconfig.py", 404),
        ("DELETE", "/v1/clicks", 405),
        ("POST", "/v1/retrieve?query_id=q0", 422),
        ("GET", "/v1/queries?limit=100000", 422),
        ("GET", "/v1/queries/%00/clicks", 200),
        ("GET", "/v1/retrieve?query_id=%F0%9F%A6%8A%00'%22%3B--&n=3", 200),
        ("GET", "/v1/retrieve?query_id=q0&query_id=q1", 422),
        ("GET", "/v1/retrieve?query_id=%FF%FE", 422),
        ("GET", "/v1/retrieve?query_id=q0&category=war&category=drama", 200),
        ("HEAD", "/", 200),
        ("HEAD", "/healthz", 200),
        ("HEAD", "/v1/retrieve?query_id=q0", 200),
        ("POST", "/v1/clicks/", 404),
        ("GET", "/v1/progress", 204),
        ("GET", "/readyz", 200),
        ("GET", "/docs", 200),
        ("GET", "/", 200),
    ],
)
def test_status_of_other_requests(running: Running, method, path, status):
    assert running.client.request(method, path).status_code == status


def test_batch_answers_in_order_and_bounds_its_size(running: Running):
    ids = ["q5", "nobody", "q0"]
    answers = running.client.post("/v1/retrieve", json={"query_ids": ids, "n": 4}).json()["answers"]
    assert [answer["query_id"] for answer in answers] == ids
    assert [len(answer["items"]) for answer in answers] == [4, 4, 4]
    assert answers[1]["source"] == "popularity" and answers[1]["fallback"] == "unknown-query"
    alone = running.client.get("/v1/retrieve", params={"query_id": "q0", "n": 4}).json()
    assert [item["item_id"] for item in alone["items"]] == [item["item_id"] for item in answers[2]["items"]]
    assert running.client.post("/v1/retrieve", json={"query_ids": ["q"] * 101}).status_code == 422


def test_an_allow_list_leaves_its_items_alone_with_and_without_a_category(running: Running):
    allow = ["i3", "i4", "i5", "i5", "nobody-knows-it"]
    for query_id in ("q5", "a-stranger"):
        body = {"query_ids": [query_id], "allow": allow}
        (answer,) = running.client.post("/v1/retrieve", json=body).json()["answers"]
        assert {item["item_id"] for item in answer["items"]} <= {"i3", "i4", "i5"}
        (war,) = running.client.post("/v1/retrieve", json=body | {"category": "war"}).json()["answers"]
        assert {item["item_id"] for item in war["items"]} <= {"i4", "i5"}
        (none,) = running.client.post("/v1/retrieve", json=body | {"allow": []}).json()["answers"]
        assert none["items"] == []
    (answer,) = running.client.post("/v1/retrieve", json={"query_ids": ["q5"], "allow": allow}).json()["answers"]
    assert len(answer["items"]) == 3
    assert running.client.post("/v1/retrieve", json=body | {"allow": ["x"] * 10_001}).status_code == 422


def test_item_and_catalogue(running: Running):
    item = running.client.get("/v1/items/i0").json()
    assert item["title"] == "Film 0" and item["category"] == ["drama", "comedy"] and item["clicks"] == 3
    assert running.client.get("/v1/categories").json().keys() == {"drama", "comedy", "war"}
    assert running.client.get("/v1/queries", params={"prefix": "q4"}).json()["query_ids"] == ["q4"]
    found = running.client.get("/v1/retrieve", params={"query_id": "q1", "category": "war", "details": True}).json()
    assert len(found["items"]) == 40 and all("war" in item["category"] for item in found["items"])
    for wrong, right in (("wra", "war"), ("War", "war"), ("Drama", "drama"), ("none", "comedy")):
        reply = running.client.get("/v1/retrieve", params={"query_id": "q1", "category": wrong})
        assert (reply.status_code, reply.json()["code"]) == (422, "unknown-name")
        assert right in reply.json()["message"]


def test_rows_of_another_bundle_and_garbage_are_dropped(running: Running):
    status = running.client.get("/v1/status").json()
    vectors = np.ones((2, WIDTH), np.float32)
    running.publish(item_rows(["i0", "strange"], vectors), bundle="another")
    running.producer.send(running.kafka.topics.item_vectors, b"\x00 not arrow").get(10)
    running.wait(lambda: running.service.consumer.set_aside > status["stream"]["set_aside"])
    running.wait(lambda: running.service.consumer.foreign >= status["stream"]["foreign"] + 2)
    assert running.client.get("/v1/items/strange").status_code == 404
    assert running.client.get("/readyz").status_code == 200


def test_openapi_document_describes_every_error(running: Running):
    document = running.client.get("/openapi.json").json()
    for path, methods in document["paths"].items():
        for method in methods.values():
            for status in ("422", "503"):
                schema = method["responses"][status]["content"]["application/json"]["schema"]
                assert schema["$ref"].endswith("ErrorOut"), path
