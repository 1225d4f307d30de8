"""Dead letters that are clicks by now go back to the stream, once each."""

from kafka import KafkaProducer

from streaming.dead_letters import drain, kinds
from tests.streaming.loop import dead_letters, eventually, folded, produce, running, some_clicks, truth, updater_config
from tests.tiny import tiny_bundle, tiny_store


def test_misplaced_clicks_are_folded_once_after_they_were_drained_twice(kafka, tmp_path):
    store, bundle, clicks = tiny_store(tmp_path, queries=9, items=12), tiny_bundle("drain"), some_clicks(80)
    by_query, by_item = truth(clicks)
    with running(bundle, store, updater_config(kafka), feast_sink=False):
        producer = KafkaProducer(**kafka.client)
        for click in clicks[:40]:  # a producer of another partitioner: all in partition 0, half of them wrongly
            key, value = click.query_id.encode(), click.model_dump_json().encode()
            producer.send(kafka.topics.clicks, value, key=key, partition=0)
        producer.send(kafka.topics.clicks, b"{not json", key=b"q1", partition=0)
        producer.close()
        produce(kafka, clicks[40:])
        eventually(lambda: kinds(updater_config(kafka))["json"] == 1, "what is no click is set aside")
        misplaced = kinds(updater_config(kafka))["partition"]
        assert 0 < misplaced < 40 and len(dead_letters(kafka)) == misplaced + 1
        assert drain(updater_config(kafka)) == (misplaced, 1)
        assert drain(updater_config(kafka)) == (0, 0)
        eventually(
            lambda: folded(kafka, "query", bundle) == by_query and folded(kafka, "item", bundle) == by_item,
            "every click is folded once",
        )
