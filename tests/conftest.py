"""Fixtures that the whole suite shares."""

import time
from collections.abc import Iterator

import pytest

from cli.broker import LocalBroker

PARTITIONS = 2


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalBroker]:
    """One real broker for the session; :func:`bootstrap` empties its topics for a test."""
    with LocalBroker(tmp_path_factory.mktemp("kafka")) as running:
        yield running


@pytest.fixture
def bootstrap(broker: LocalBroker) -> str:
    """``host:port`` of the broker with the topics of the loop, empty, of two partitions each."""
    return empty_topics(broker)


def empty_topics(broker: LocalBroker) -> str:
    """Make the topics of the loop anew; returns ``host:port``."""
    from kafka.admin import KafkaAdminClient

    from streaming.clients import create_topics, quiet_kafka
    from streaming.topics import CLICKS, DEAD, IMPRESSIONS, ITEM_VECTORS, QUERY_VECTORS, SIGNALS_TOPIC

    quiet_kafka()
    admin = KafkaAdminClient(bootstrap_servers=broker.bootstrap)
    try:
        ours = {CLICKS, DEAD, SIGNALS_TOPIC, QUERY_VECTORS, ITEM_VECTORS, IMPRESSIONS}
        admin.delete_topics([name for name in admin.list_topics() if name in ours])
        while ours & set(admin.list_topics()):  # deletion is asynchronous
            time.sleep(0.05)
    finally:
        admin.close()
    create_topics(broker.bootstrap, PARTITIONS)
    return broker.bootstrap
