"""Which partitions a group member has been given and has lost."""

import threading
from collections.abc import Iterable

from kafka import KafkaConsumer, TopicPartition
from kafka.consumer.subscription_state import ConsumerRebalanceListener
from kafka.structs import MemberState


class Partitions(ConsumerRebalanceListener):
    """Notes of what a rebalance changed, in order.

    kafka-python calls it on its network thread, where waiting for anything would stop the heartbeats: it takes notes,
    and the member acts on them after its poll.
    """

    consumer: KafkaConsumer
    """The member, given as soon as it is made: before its first poll nothing is assigned."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lost: set[TopicPartition] = set()
        self._gained: set[TopicPartition] = set()

    @property
    def settled(self) -> bool:
        """Whether this member's group has settled: it has its partitions, or none for now. A group may have more
        members than partitions, of which some wait to take over."""
        return self.consumer.group_metadata().state == MemberState.STABLE

    def changes(self) -> tuple[set[TopicPartition], set[TopicPartition]]:
        """Partitions lost and gained since the last call; one in both was lost first."""
        with self._lock:
            lost, gained, self._lost, self._gained = self._lost, self._gained, set(), set()
        return lost, gained

    def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        assigned = set(assigned)
        self.consumer.pause(*assigned)  # until their state is restored
        with self._lock:
            self._gained |= assigned

    def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        revoked = set(revoked)
        with self._lock:
            self._lost |= revoked
            self._gained -= revoked
