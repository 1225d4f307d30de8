"""What is not a click goes to the dead letters, with its reason, its place and its bytes, and changes nothing else."""

import json
import time

import pytest
from kafka import KafkaProducer

from model.click import Click
from tests.conftest import fresh_topics
from tests.streaming.loop import dead_letters, eventually, folded, running, truth, updater_config
from tests.tiny import CUT_MS, tiny_bundle, tiny_store

GOOD = {"event_id": "e", "query_id": "q1", "item_id": "i1", "event_time": CUT_MS}


def broken(**changes) -> bytes:
    return json.dumps({**GOOD, **changes}).encode()


BAD = {
    "not JSON": (b"q1", b"{not json", "not JSON"),
    "not text": (b"q1", b"\xff\xfe\x00", "not JSON"),
    "empty": (b"q1", None, "not JSON"),
    "not an object": (b"q1", b"[1]", "click"),
    "a field missing": (b"q1", json.dumps({k: v for k, v in GOOD.items() if k != "item_id"}).encode(), "item_id"),
    "a wrong type": (b"q1", broken(item_id=7), "item_id"),
    "an empty id": (b"q1", broken(item_id=""), "item_id"),
    "an endless id": (b"q1", broken(item_id="i" * 300), "item_id"),
    "half a character": (b"q1", broken(item_id="\ud800"), "not JSON"),
    "seconds for ms": (b"q1", broken(event_time=CUT_MS // 1000), "event_time"),
    "microseconds for ms": (b"q1", broken(event_time=CUT_MS * 1000), "event_time"),
    "a time as text": (b"q1", broken(event_time="2023-11-14"), "event_time"),
    "tomorrow": (b"q1", broken(event_time=int(time.time() * 1000) + 86_400_000), "event_time"),
    "another key": (b"q2", broken(), "key"),
    "no key": (None, broken(), "key"),
    "an infinite number": (b"q1", broken(context={"price": float("inf")}), "context"),
    "another partition than its key's": (b"q2", broken(query_id="q2"), "partition: the key belongs in partition 1"),
    "nearly a megabyte": (b"q1", b"x" * 1_000_000, "not JSON"),
}


@pytest.fixture(scope="module")
def outcome(broker, tmp_path_factory):
    """All the bad records between two good ones, through the loop; partition 0 throughout."""
    kafka = fresh_topics(broker)
    bundle = tiny_bundle("dead-letters")
    store = tiny_store(tmp_path_factory.mktemp("home"))
    good = [Click(event_id=f"g{k}", query_id="q1", item_id="i1", event_time=CUT_MS + k) for k in range(2)]
    with running(bundle, store, updater_config(kafka), feast_sink=False):
        producer = KafkaProducer(**kafka.client, acks="all")
        places = {}
        producer.send(kafka.topics.clicks, key=b"q1", value=good[0].model_dump_json().encode(), partition=0).get(10)
        for name, (key, value, _) in BAD.items():
            sent = producer.send(kafka.topics.clicks, key=key, value=value, partition=0) if (key or value) else None
            places[name] = sent.get(10).offset
        producer.send(kafka.topics.clicks, key=b"q1", value=good[1].model_dump_json().encode(), partition=0).get(10)
        producer.close()
        by_query, by_item = truth(good)
        eventually(
            lambda: folded(kafka, "item", bundle) == by_item and folded(kafka, "query", bundle) == by_query,
            "the good clicks are folded",
        )
        letters = dead_letters(kafka)
    by_offset = {int(dict(letter.headers)["offset"]): letter for letter in letters}
    return by_offset, places, len(letters), kafka.topics.clicks


@pytest.mark.parametrize("name", BAD)
def test_a_bad_click_is_a_dead_letter(outcome, name):
    letters, places, _, topic = outcome
    letter, (key, value, reason) = letters[places[name]], BAD[name]
    headers = {header: text.decode() for header, text in letter.headers}
    assert headers["reason"].startswith(reason)
    assert (headers["topic"], headers["partition"], headers["offset"]) == (topic, "0", str(places[name]))
    assert letter.key == key
    assert letter.value == (value or b"")[:900_000]
    assert headers.get("truncated_from_bytes") == ("1000000" if name == "nearly a megabyte" else None)


def test_there_is_a_letter_for_each_and_no_more(outcome):
    _, _, count, _ = outcome
    assert count == len(BAD)
