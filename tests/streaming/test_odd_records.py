"""No record stops the stream: what cannot be processed is set aside, and the others are folded."""

import gzip
import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from kafka import KafkaProducer

from feature_repo.event_rule import EventRule
from streaming.kafka.records import SIGNALS, UnknownFormat, pack
from streaming.stages.stage import QueryStage
from tests.streaming.loop import dead_letters, eventually, folded, produce, running, some_clicks, truth, updater_config
from tests.tiny import tiny_bundle, tiny_store


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tiny_store(tmp_path_factory.mktemp("home"), queries=9, items=12)


def counted(kafka, bundle, clicks) -> bool:
    by_query, by_item = truth(clicks)
    return folded(kafka, "query", bundle) == by_query and folded(kafka, "item", bundle) == by_item


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
def test_clicks_in_compressed_batches_are_folded(kafka, store, codec):
    bundle, clicks = tiny_bundle(f"codec-{codec}"), some_clicks(200)
    producer = KafkaProducer(**kafka.client, compression_type=codec, linger_ms=50)
    for click in clicks:
        producer.send(kafka.topics.clicks, click.model_dump_json().encode(), key=click.query_id.encode())
    producer.close()
    with running(bundle, store, updater_config(kafka), feast_sink=False):
        eventually(lambda: counted(kafka, bundle, clicks), "all clicks are folded")


def test_a_record_that_breaks_the_stage_is_set_aside_alone(kafka, store, monkeypatch):
    bundle, clicks = tiny_bundle("breaks"), some_clicks(60)
    process = QueryStage.process

    def breaks(self, records):
        if any(b'"e17"' in record.value for record in records):
            raise KeyError("a bug that nobody knew of")
        return process(self, records)

    monkeypatch.setattr(QueryStage, "process", breaks)
    others = [click for click in clicks if click.event_id != "e17"]
    produce(kafka, clicks)
    with running(bundle, store, updater_config(kafka), feast_sink=False):
        eventually(lambda: counted(kafka, bundle, others), "all others are folded")
        (letter,) = dead_letters(kafka)
    assert json.loads(letter.value)["event_id"] == "e17"
    assert b"a bug that nobody knew of" in dict(letter.headers)["reason"]


def test_events_that_are_no_clicks_by_the_cards_rule_change_nothing(kafka, store):
    bundle, events = tiny_bundle("rule"), some_clicks(120)
    bundle.manifest.rule = EventRule(events={"buy": 2.0, "dismiss": -1.0}, at_least=4)
    kinds = ({}, {"event_type": "buy", "value": 4.0}, {"event_type": "buy", "value": 1.0}, {"event_type": "dismiss"},
             {"event_type": "view"})  # fmt: skip
    events = [event.model_copy(update=kinds[n % len(kinds)]) for n, event in enumerate(events)]
    again = [event.model_copy(update=kinds[1]) for event in events if event.event_type == "view"]
    with running(bundle, store, updater_config(kafka), feast_sink=False):
        produce(kafka, [*events, *again])  # what comes again is what it was at first
        clicks = [event for n, event in enumerate(events) if n % len(kinds) < 2]
        eventually(lambda: counted(kafka, bundle, clicks), "only what is a click is folded")
        produce(kafka, late := some_clicks(20, start=1_000))
        eventually(lambda: counted(kafka, bundle, [*clicks, *late]), "and still only that")
        assert not dead_letters(kafka)


def test_signals_that_nobody_of_ours_wrote_are_set_aside(kafka, store):
    bundle, clicks = tiny_bundle("poison"), some_clicks(40)
    vector = np.ones(8, np.float32)
    infinite = pa.record_batch(
        [pa.array(["i1"]), pa.array([(vector * np.inf).tolist()], pa.list_(pa.float32())), pa.array([1])], SIGNALS
    )
    foreign = pa.record_batch([pa.array(["i1"])], names=["another_schema"])
    with running(bundle, store, updater_config(kafka), feast_sink=False):
        producer = KafkaProducer(**kafka.client)
        for value in (b"junk", gzip.compress(b"junk"), pack(foreign, bundle.version), pack(infinite, bundle.version)):
            producer.send(kafka.topics.item_signals, value, partition=0)
        producer.close()
        produce(kafka, clicks)
        eventually(lambda: counted(kafka, bundle, clicks), "all clicks are folded")
        eventually(lambda: len(dead_letters(kafka)) == 4, "the four are dead letters")


def test_an_infinite_price_in_the_store_is_an_unknown_price(kafka, tmp_path):
    store, bundle, clicks = tiny_store(tmp_path), tiny_bundle("price", queries=3, items=3), some_clicks(60, 3, 3)
    frame = pd.DataFrame({"query_id": ["q4"], "city": ["Oslo"], "age": [1e300], "known": [1]})
    frame["event_timestamp"] = frame["created_timestamp"] = pd.Timestamp.now("UTC")
    store.write_to_online_store("query_profile", frame)
    with running(bundle, store, updater_config(kafka), feast_sink=False):
        produce(kafka, clicks)
        eventually(lambda: counted(kafka, bundle, clicks), "all clicks are folded")
        assert not dead_letters(kafka)


def test_a_record_of_a_later_release_stops_who_would_lose_it_and_none_that_works_for_another_bundle(
    kafka, store, monkeypatch
):
    bundle, clicks, topic = tiny_bundle("later"), some_clicks(60), kafka.topics.item_signals
    width = bundle.manifest.config.signal_dim
    signal = pa.RecordBatch.from_pylist([{"item_id": "i1", "vector": [0.5] * width, "event_time": 1}], SIGNALS)
    with monkeypatch.context() as later:
        later.setattr("streaming.kafka.records.FORMAT", 3)
        theirs, ours = (pack(signal, version) for version in ("another", bundle.version))
    producer = KafkaProducer(**kafka.client)
    with (
        pytest.raises(UnknownFormat, match=rf"{topic}-0 at \d+ has format 3, and this release reads 1 to 1: run"),
        running(bundle, store, updater_config(kafka), feast_sink=False) as failed,
    ):
        producer.send(topic, theirs, partition=0).get(10)
        produce(kafka, clicks)
        eventually(lambda: counted(kafka, bundle, clicks), "clicks are folded")
        producer.send(topic, ours, partition=0).get(10)
        eventually(lambda: bool(failed), "the updater ends")
    producer.close()
    assert dead_letters(kafka) == [], "whoever reads this format still finds it"
