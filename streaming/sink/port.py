"""All that a sink asks of Kafka: a narrow door, behind which a simulated broker can stand."""

from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

from kafka import KafkaConsumer, TopicPartition
from kafka.structs import OffsetAndMetadata

from model.settings.updater import UpdaterConfig
from streaming.kafka.assignment import Partitions
from streaming.kafka.changelog import Change, changes, read_committed
from streaming.kafka.clients import close_quietly, group_consumer
from streaming.kafka.offsets import bundle_starts, sink_group


class Polled(NamedTuple):
    """What has been read of a partition: a bundle's changes, and the offset that comes next."""

    changes: list[Change]
    next: int


class Place(NamedTuple):
    """What the group keeps of a partition."""

    offset: int
    text: str


class SinkPort(Protocol):
    """A member of the sinks' group. Every method may raise ``KafkaError``, ``TimeoutError`` or ``OSError``."""

    def open(self) -> None:
        """Join the group."""

    def poll(self, timeout_ms: int) -> dict[TopicPartition, Polled]:
        """The bundle's changes in the partitions that have been resumed."""

    def changes(self) -> tuple[set[TopicPartition], set[TopicPartition]]:
        """Partitions that were lost, and gained (paused), since the last call."""

    @property
    def settled(self) -> bool:
        """Whether the group has given this member its partitions, or none for now."""

    def owns(self, partition: TopicPartition) -> bool: ...

    def pause(self, partition: TopicPartition) -> None: ...

    def resume(self, partition: TopicPartition, offset: int) -> None: ...

    def position(self, partition: TopicPartition) -> int: ...

    def committed(self, partition: TopicPartition) -> Place | None: ...

    def commit(self, places: dict[TopicPartition, Place]) -> None:
        """Refused if this member has been replaced."""

    def end(self, partition: TopicPartition) -> int: ...

    def changelog(self, partition: TopicPartition) -> Iterator[Change]:
        """The bundle's changes in a partition, to its end."""

    def count(self, topic: str) -> int:
        """How many partitions a topic has."""

    def close(self) -> None: ...


class KafkaSinkPort:
    """The port to a real cluster, by kafka-python."""

    def __init__(self, config: UpdaterConfig, bundle: str, name: str, max_poll_interval_ms: int):
        self._config, self._bundle, self._name, self._interval = config, bundle, name, max_poll_interval_ms
        self._partitions = Partitions()
        self._consumer: Any = None

    def open(self) -> None:
        topics = self._config.topics
        self._partitions = Partitions()
        self._consumer = self._partitions.consumer = group_consumer(
            self._config, sink_group(self._config), (topics.query_vectors, topics.item_vectors), self._name,
            listener=self._partitions, max_poll_records=64, max_poll_interval_ms=self._interval,
        )  # fmt: skip

    def poll(self, timeout_ms: int) -> dict[TopicPartition, Polled]:
        polled = self._consumer.poll(timeout_ms=timeout_ms)
        return {
            p: Polled(list(changes(records, self._bundle)), records[-1].offset + 1) for p, records in polled.items()
        }

    def changes(self) -> tuple[set[TopicPartition], set[TopicPartition]]:
        return self._partitions.changes()

    @property
    def settled(self) -> bool:
        return self._partitions.settled

    def owns(self, partition: TopicPartition) -> bool:
        return partition in self._consumer.assignment()

    def pause(self, partition: TopicPartition) -> None:
        self._consumer.pause(partition)

    def resume(self, partition: TopicPartition, offset: int) -> None:
        self._consumer.seek(partition, offset)
        self._consumer.resume(partition)

    def position(self, partition: TopicPartition) -> int:
        return self._consumer.position(partition) or 0

    def committed(self, partition: TopicPartition) -> Place | None:
        found = self._consumer.committed(partition, metadata=True)
        return Place(found.offset, found.metadata) if found else None

    def commit(self, places: dict[TopicPartition, Place]) -> None:
        self._consumer.commit({p: OffsetAndMetadata(offset, text, -1) for p, (offset, text) in places.items()})

    def end(self, partition: TopicPartition) -> int:
        return self._consumer.end_offsets([partition])[partition]

    def changelog(self, partition: TopicPartition) -> Iterator[Change]:
        starts = bundle_starts(self._config, self._bundle)
        known = {partition: starts[partition]} if partition in starts else {}
        return read_committed(self._config, [partition], self._bundle, known)

    def count(self, topic: str) -> int:
        return len(self._consumer.partitions_for_topic(topic))

    def close(self) -> None:
        consumer: KafkaConsumer | None = self._consumer
        if consumer is not None:
            close_quietly(consumer, 2)
            self._consumer = None
