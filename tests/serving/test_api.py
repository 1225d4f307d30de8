"""The HTTP API on a real server: right answers to right requests, 4xx to the others."""

import numpy as np
from kafka import KafkaConsumer

from feature_repo.click import Click
from streaming.topics import CLICKS
from tests.serving.conftest import Running, item_rows


def test_answer_names_its_bundle_and_leaves_out_what_was_seen(running: Running):
    answer = running.client.get("/v1/retrieve", params={"query_id": "q0", "n": 60, "details": True}).json()
    assert answer["bundle"] == running.bundle.version
    assert answer["source"] == "bundle" and answer["fallback"] is None
    assert answer["clicks"] == 3
    seen = {running.bundle.items.ids[row] for row in running.bundle.queries.history[0] if row >= 0}
    found = [item["item_id"] for item in answer["items"]]
    assert len(found) == len(set(found)) == 60 - len(seen)
    assert not seen & set(found)
    assert all(item["title"].startswith("Film ") and item["because"] for item in answer["items"])
    scores = [item["score"] for item in answer["items"]]
    assert scores == sorted(scores, reverse=True)


def test_posted_click_reaches_the_topic_whole(running: Running):
    reply = running.client.post("/v1/clicks", json={"query_id": "q1", "item_id": "i3", "context": {"page": "home"}})
    assert reply.status_code == 202
    consumer = KafkaConsumer(
        CLICKS, bootstrap_servers=running.bootstrap,
        auto_offset_reset="earliest", group_id=None, consumer_timeout_ms=5000,
    )  # fmt: skip
    record = next(record for record in consumer if reply.json()["event_id"].encode() in record.value)
    consumer.close()
    click = Click.model_validate_json(record.value)
    assert (click.event_id, click.item_id, click.context) == (reply.json()["event_id"], "i3", {"page": "home"})


def test_new_item_vector_is_found_within_a_second(running: Running):
    _, vector = running.service.retriever.locate("q2")
    before = running.client.get("/v1/retrieve", params={"query_id": "q2", "n": 1}).json()["items"][0]["item_id"]
    running.publish(item_rows(["brand-new"], vector))
    running.wait(lambda: running.service.retriever.served.corpus.row("brand-new") is not None, 1)
    found = running.client.get("/v1/retrieve", params={"query_id": "q2", "n": 1}).json()["items"][0]
    assert found["item_id"] == "brand-new" != before
    assert np.isclose(found["score"], 1, atol=1e-4)
