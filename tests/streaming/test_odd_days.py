"""Clicks that are well-formed on days that are odd: they come late, or the topic is emptied."""

import numpy as np
import pytest
from kafka import TopicPartition
from kafka.admin import KafkaAdminClient

from feature_repo.click_event import Click
from streaming.config import UpdaterConfig
from streaming.topics import CLICKS, ITEM_VECTORS, QUERY_VECTORS
from tests.conftest import PARTITIONS
from tests.streaming.loop import committed, eventually, folded, produce, running, some_clicks, truth
from tests.tiny import CUT_MS, tiny_bundle, tiny_store

HOUR_MS = 3_600_000


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tiny_store(tmp_path_factory.mktemp("home"), queries=9, items=12)


def counted(bootstrap, bundle, clicks) -> bool:
    by_query, by_item = truth(clicks)
    return folded(bootstrap, QUERY_VECTORS, bundle) == by_query and folded(bootstrap, ITEM_VECTORS, bundle) == by_item


def test_a_late_click_counts_what_it_would_be_worth_by_now(bootstrap, store):
    bundle = tiny_bundle("late")
    hours = (0, 5, 2, 5, 1)  # in this order
    clicks = [
        Click(event_id=f"l{k}", query_id="new", item_id="i1", event_time=CUT_MS + hour * HOUR_MS)
        for k, hour in enumerate(hours)
    ]
    with running(bundle, store, UpdaterConfig(bootstrap=bootstrap, batch_clicks=2), feast_sink=False):
        produce(bootstrap, clicks)
        eventually(lambda: counted(bootstrap, bundle, clicks), "all are folded")
    row = committed(bootstrap, QUERY_VECTORS, bundle)["new"]
    ages = max(hours) - np.array(hours)
    assert row["last_click"] == CUT_MS + max(hours) * HOUR_MS
    np.testing.assert_allclose(row["counters"], [np.exp2(-ages / half).sum() for half in (1, 24)], rtol=1e-5)


def test_an_emptied_topic_leaves_the_state_and_the_stream(bootstrap, store):
    bundle, config, clicks = tiny_bundle("emptied"), UpdaterConfig(bootstrap=bootstrap), some_clicks(90)

    def empty() -> None:
        admin = KafkaAdminClient(bootstrap_servers=bootstrap)
        admin.delete_records({TopicPartition(CLICKS, p): -1 for p in range(PARTITIONS)})
        admin.close()

    with running(bundle, store, config, feast_sink=False):
        produce(bootstrap, clicks[:30])
        eventually(lambda: counted(bootstrap, bundle, clicks[:30]), "the first are folded")
        empty()
        produce(bootstrap, clicks[30:60])
        eventually(lambda: counted(bootstrap, bundle, clicks[:60]), "it goes on behind the gap")
    empty()
    produce(bootstrap, clicks[60:])
    with running(bundle, store, config, feast_sink=False):
        eventually(lambda: counted(bootstrap, bundle, clicks), "and so does the next start")
