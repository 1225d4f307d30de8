"""The worker's port by kafka-python."""

from collections.abc import Iterable
from typing import Any

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import IllegalStateError, KafkaError
from kafka.structs import MemberState

from model.settings.updater import UpdaterConfig
from streaming.kafka.assignment import Partitions
from streaming.kafka.clients import close_quietly, group_consumer
from streaming.kafka.port import Member, Offsets, Restoring
from streaming.kafka.transactions import Message, Transactions


class KafkaPort(Restoring):
    """A :class:`~streaming.kafka.port.Port` to a real cluster; see :func:`~streaming.kafka.port.port_of`."""

    def __init__(self, config: UpdaterConfig, group: str, topic: str, name: str, batch: int, linger_ms: int):
        super().__init__(config)
        self._group, self._topic, self._name = group, topic, name
        self._options = {"max_poll_records": batch, "max_partition_fetch_bytes": 4 << 20}
        if linger_ms:
            self._options |= {"fetch_min_bytes": 1 << 16, "fetch_max_wait_ms": linger_ms}
        self._transactions = Transactions(config, f"{group}-{config.instance}")
        self._partitions = Partitions()
        self._consumer: KafkaConsumer = None  # until it is opened

    def open(self) -> None:
        self._transactions.open()
        self._partitions = Partitions()
        self._consumer = self._partitions.consumer = group_consumer(
            self._config, self._group, [self._topic], self._name, listener=self._partitions, **self._options
        )

    def poll(self, timeout_ms: int) -> dict[TopicPartition, list[Any]]:
        return self._consumer.poll(timeout_ms=timeout_ms)

    def member(self) -> Member:
        group = self._consumer.group_metadata()
        return Member(group.member_id, group.generation_id, group.state == MemberState.STABLE, group)

    def changes(self) -> tuple[set[TopicPartition], set[TopicPartition]]:
        return self._partitions.changes()

    def pause(self, partition: TopicPartition) -> None:
        if partition in self._consumer.assignment():
            self._consumer.pause(partition)

    def resume(self, partition: TopicPartition, offset: int) -> bool:
        try:
            self._consumer.seek(partition, offset)
            self._consumer.resume(partition)
        except (IllegalStateError, AssertionError):
            return False
        return True

    def position(self, partition: TopicPartition) -> int:
        try:
            return self._consumer.position(partition, timeout_ms=0) or 0
        except (KafkaError, AssertionError):
            return 0

    def committed(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int | None]:
        return {partition: self._consumer.committed(partition) for partition in partitions}

    def ends(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        return self._consumer.end_offsets(list(partitions))

    def commit(self, messages: list[Message], offsets: Offsets, member: Member) -> None:
        self._transactions.commit(messages, offsets, member.group)

    def renew(self) -> None:
        self._transactions.open()

    def close(self) -> None:
        self._transactions.close()
        if self._consumer is not None:
            close_quietly(self._consumer, 2)
            self._consumer = None
