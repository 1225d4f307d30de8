"""Which partitions a group member has been given, and which of them it is ready to read."""

from collections.abc import Iterable

from kafka import KafkaConsumer, TopicPartition
from kafka.consumer.subscription_state import ConsumerRebalanceListener


class Partitions(ConsumerRebalanceListener):
    """A member's partitions: those that are ``new``, to be prepared first, and those that are ``ready``.

    kafka-python calls it on its network thread, where waiting for anything would stop the heartbeats: it takes notes,
    and the member acts on them after its poll.
    """

    def __init__(self) -> None:
        self.consumer: KafkaConsumer | None = None
        self.new: set[TopicPartition] = set()
        self.ready: set[TopicPartition] = set()

    def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        self.consumer.pause(*assigned)  # until they are prepared
        self.new.update(assigned)

    def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        self.new.difference_update(revoked)
        self.ready.difference_update(revoked)
