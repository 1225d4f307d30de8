"""How far consumer groups are, and where topics end: what Kafka knows of all processes together."""

import time
from collections.abc import Callable
from typing import Any

from kafka import TopicPartition
from kafka.admin import KafkaAdminClient
from kafka.errors import KafkaError
from kafka.structs import OffsetAndMetadata

from model.settings.updater import KafkaConnection, UpdaterConfig
from streaming.kafka.clients import close_quietly, free_consumer, partitions_of

Offsets = dict[TopicPartition, int]
_LOOK_S = 1.0


def group_name(config: KafkaConnection, stage: str, version: str) -> str:
    """The consumer group of a stage's workers."""
    return f"{config.prefix}dat-{stage}-{version}"


def sink_group(config: KafkaConnection) -> str:
    """The consumer group of the Feast sinks, whatever the bundle."""
    return f"{config.prefix}dat-feast"


def bundle_starts(config: UpdaterConfig, version: str) -> Offsets:
    """Where a bundle's records begin in each internal topic: their ends when the first updater started for it.

    Kafka keeps them as the offsets of a group of their own. Two updaters that start at once may both write theirs:
    either is right, since both looked at the ends before either wrote, hence before any worker of the bundle did.

    Raises:
        kafka.errors.KafkaError: the cluster did not answer. TimeoutError: a topic does not exist.
    """
    topics = config.topics
    now = ends(config, [topics.item_signals, topics.query_vectors, topics.item_vectors])
    group = start_group(config, version)
    known = _patiently(committed, config, [group, *(group_name(config, stage, version) for stage in ("query", "item"))])
    starts = known.pop(group)
    if not starts and any(known.values()):
        return {}  # it has worked, and Kafka has forgotten where it began
    starts = now | starts
    _write_start(config, group, starts)
    return starts


def start_group(config: KafkaConnection, version: str) -> str:
    """The group whose offsets are a bundle's starts."""
    return f"{config.prefix}dat-start-{version}"


def keep_start(config: KafkaConnection, version: str) -> None:
    """Write a bundle's starts again: Kafka forgets the offsets of a group that commits nothing for a week."""
    group = start_group(config, version)
    if starts := committed(config, [group])[group]:
        _write_start(config, group, starts)


def _write_start(config: KafkaConnection, group: str, starts: Offsets) -> None:
    admin = KafkaAdminClient(**config.client)
    try:
        values = {p: OffsetAndMetadata(offset, "", -1) for p, offset in starts.items()}
        _patiently(admin.alter_group_offsets, group, values)
    finally:
        admin.close()


def _patiently(ask: Callable[..., Any], *arguments: Any) -> Any:
    """Ask again while the cluster has no coordinator yet: the first group that there is makes it create the topic."""
    deadline = time.monotonic() + 30
    while True:
        try:
            return ask(*arguments)
        except KafkaError as error:
            if not error.retriable or time.monotonic() > deadline:
                raise
            time.sleep(0.2)


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


def texts(connection: KafkaConnection, group: str) -> dict[TopicPartition, str]:
    """What a consumer group has written beside its offsets.

    Raises:
        kafka.errors.KafkaError: the cluster did not answer.
    """
    admin = KafkaAdminClient(**connection.client)
    try:
        return {p: at.metadata or "" for p, at in admin.list_group_offsets({group: None}).get(group, {}).items()}
    finally:
        admin.close()


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


def unread(connection: KafkaConnection, at: Offsets, end: Offsets) -> Offsets:
    """How much of some partitions is left from where their readers are; 0 where only marks of transactions are left,
    which nobody commits."""
    left = {p: max(0, last - at.get(p, 0)) for p, last in end.items()}
    behind = [p for p, count in left.items() if count]
    if not behind:
        return left
    consumer = free_consumer(connection, max_partition_fetch_bytes=1 << 16)
    try:
        consumer.assign(behind)
        for p in behind:
            consumer.seek(p, at.get(p, 0))
        deadline, waiting = time.monotonic() + _LOOK_S, set(behind)
        while waiting and time.monotonic() < deadline:
            waiting -= consumer.poll(timeout_ms=100).keys()
            for p in [p for p in waiting if (consumer.position(p) or 0) >= end[p]]:
                left[p] = 0
                waiting.remove(p)
    finally:
        close_quietly(consumer)
    return left
