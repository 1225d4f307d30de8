"""How far consumer groups are, and where topics end: what Kafka knows of all processes together."""

from kafka import TopicPartition
from kafka.admin import KafkaAdminClient

from streaming.clients import close_quietly, free_consumer, partitions_of
from streaming.config import KafkaConnection, UpdaterConfig

Offsets = dict[TopicPartition, int]


def group_name(config: UpdaterConfig, stage: str, version: str) -> str:
    """The consumer group of a stage's workers."""
    return f"{config.group_prefix}-{stage}-{version}"


def sink_group(config: UpdaterConfig) -> str:
    """The consumer group of the Feast sinks, whatever the bundle."""
    return f"{config.group_prefix}-feast"


def committed(connection: KafkaConnection, groups: list[str]) -> dict[str, Offsets]:
    """What some consumer groups have committed; nothing of a group that there is not.

    Raises:
        kafka.errors.KafkaError: the cluster did not answer.
    """
    admin = KafkaAdminClient(**connection.client)
    try:
        found = {group: admin.list_group_offsets({group: None}).get(group, {}) for group in groups}
    finally:
        admin.close()
    return {group: {p: at.offset for p, at in offsets.items() if at.offset >= 0} for group, offsets in found.items()}


def ends(connection: KafkaConnection, topics: list[str]) -> Offsets:
    """Where the committed records of some topics end.

    Raises:
        TimeoutError: a topic does not exist.
    """
    consumer = free_consumer(connection)
    try:
        return consumer.end_offsets([p for topic in topics for p in partitions_of(consumer, topic, 2)])
    finally:
        close_quietly(consumer)
