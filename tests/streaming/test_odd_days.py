"""Clicks that are well-formed on days that are odd: they come late, or the topic is emptied."""

import numpy as np
import pytest
from kafka import TopicPartition
from kafka.admin import KafkaAdminClient

from model.click import Click
from tests.conftest import PARTITIONS
from tests.streaming.loop import committed, eventually, folded, produce, running, some_clicks, truth, updater_config
from tests.tiny import CUT_MS, tiny_bundle, tiny_store

HOUR_MS = 3_600_000


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tiny_store(tmp_path_factory.mktemp("home"), queries=9, items=12)


def counted(kafka, bundle, clicks) -> bool:
    by_query, by_item = truth(clicks)
    return folded(kafka, "query", bundle) == by_query and folded(kafka, "item", bundle) == by_item


def test_a_late_click_counts_what_it_would_be_worth_by_now(kafka, store):
    bundle = tiny_bundle("late")
    hours = (0, 5, 2, 5, 1)  # in this order
    clicks = [
        Click(event_id=f"l{k}", query_id="new", item_id="i1", event_time=CUT_MS + hour * HOUR_MS)
        for k, hour in enumerate(hours)
    ]
    with running(bundle, store, updater_config(kafka, batch_clicks=2), feast_sink=False):
        produce(kafka, clicks)
        eventually(lambda: counted(kafka, bundle, clicks), "all are folded")
    row = committed(kafka, "query", bundle)["new"]
    ages = max(hours) - np.array(hours)
    assert row["last_click"] == CUT_MS + max(hours) * HOUR_MS
    np.testing.assert_allclose(row["counters"], [np.exp2(-ages / half).sum() for half in (1, 24)], rtol=1e-5)


def test_an_emptied_topic_leaves_the_state_and_the_stream(kafka, store):
    bundle, config, clicks = tiny_bundle("emptied"), updater_config(kafka), some_clicks(90)

    def empty() -> None:
        admin = KafkaAdminClient(**kafka.client)
        admin.delete_records({TopicPartition(kafka.topics.clicks, p): -1 for p in range(PARTITIONS)})
        admin.close()

    with running(bundle, store, config, feast_sink=False):
        produce(kafka, clicks[:30])
        eventually(lambda: counted(kafka, bundle, clicks[:30]), "the first are folded")
        empty()
        produce(kafka, clicks[30:60])
        eventually(lambda: counted(kafka, bundle, clicks[:60]), "it goes on behind the gap")
    empty()
    produce(kafka, clicks[60:])
    with running(bundle, store, config, feast_sink=False):
        eventually(lambda: counted(kafka, bundle, clicks), "and so does the next start")
