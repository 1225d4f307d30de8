"""Internal topics keep what bundles need, lose what none needs, and a state that would be wrong is refused."""

import pytest
from kafka import TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient

from model.bundle_store import BundleStore
from model.settings.updater import KafkaConnection
from streaming.kafka.changelog import ChangelogLost
from streaming.kafka.clients import free_consumer
from streaming.kafka.topics import create_topics, internal
from streaming.trim import trim
from tests.conftest import PARTITIONS
from tests.streaming.loop import eventually, folded, produce, running, some_clicks, truth, updater_config
from tests.tiny import tiny_bundle, tiny_store


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tiny_store(tmp_path_factory.mktemp("home"), queries=9, items=12)


def counted(kafka, bundle, clicks) -> bool:
    by_query, by_item = truth(clicks)
    return folded(kafka, "query", bundle) == by_query and folded(kafka, "item", bundle) == by_item


def beginnings(kafka) -> dict[TopicPartition, int]:
    consumer = free_consumer(kafka)
    try:
        return consumer.beginning_offsets(
            [TopicPartition(topic, p) for topic in internal(kafka.topics) for p in range(PARTITIONS)]
        )
    finally:
        consumer.close()


def test_internal_topics_that_others_created_lose_their_retention(broker):
    kafka = KafkaConnection(bootstrap=broker.bootstrap, prefix="theirs.")
    admin = KafkaAdminClient(**kafka.client)
    week = {"num_partitions": 2, "configs": {"retention.ms": str(7 * 86_400_000)}}
    admin.create_topics(dict.fromkeys(kafka.topics.all, week))
    create_topics(kafka, 2)
    resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in kafka.topics.all]
    retention = {
        name: values["retention.ms"]["value"]
        for name, values in admin.describe_configs(resources, config_filter="all")["topic"].items()
    }
    admin.close()
    assert {name for name, ms in retention.items() if ms == "-1"} == set(internal(kafka.topics))


def test_a_changelog_of_which_records_are_gone_is_refused_in_a_sentence(kafka, store):
    bundle, clicks = tiny_bundle("gone"), some_clicks(60)
    with running(bundle, store, updater_config(kafka), feast_sink=False):
        produce(kafka, clicks)
        eventually(lambda: counted(kafka, bundle, clicks), "all clicks are folded")
    admin = KafkaAdminClient(**kafka.client)
    admin.delete_records({TopicPartition(kafka.topics.query_vectors, 0): 2})
    admin.close()
    with (
        pytest.raises(ChangelogLost, match="query-vectors-0 begins at 2, and the rows of gone at 0"),
        running(bundle, store, updater_config(kafka), feast_sink=False) as failed,
    ):
        eventually(lambda: bool(failed), "it is refused")


def test_what_no_kept_bundle_needs_is_deleted_and_the_kept_ones_restart_exactly(kafka, store, tmp_path):
    first, second, clicks = tiny_bundle("trim-1"), tiny_bundle("trim-2", seed=1), some_clicks(120)
    shelf, config = BundleStore(tmp_path / "bundles"), updater_config(kafka)
    for bundle, some in ((first, clicks[:60]), (second, clicks[60:])):
        shelf.publish(bundle)
        with running(bundle, store, config, feast_sink=False):
            produce(kafka, some)
            done = clicks[: clicks.index(some[-1]) + 1]
            eventually(lambda b=bundle, done=done: counted(kafka, b, done), "all clicks are folded")
    before = beginnings(kafka)
    assert not trim(config, shelf.versions()), "while the first is kept, all is needed"
    assert beginnings(kafka) == before
    begin = trim(config, [second.version])
    assert begin and {p: offset for p, offset in beginnings(kafka).items() if offset} == begin
    assert counted(kafka, second, clicks)
    with running(second, store, config, feast_sink=False):
        more = some_clicks(30, seed=5, start=200)
        produce(kafka, more)
        eventually(lambda: counted(kafka, second, clicks + more), "it goes on from the state that it had")
