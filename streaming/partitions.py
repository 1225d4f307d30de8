"""Which partitions a group member has been given, and which of them it is ready to read."""

from collections.abc import Iterable

from kafka import KafkaConsumer, TopicPartition
from kafka.consumer.subscription_state import ConsumerRebalanceListener
from kafka.structs import MemberState


class Partitions(ConsumerRebalanceListener):
    """A member's partitions: those that are ``new``, to be prepared first, and those that are ``ready``.

    kafka-python calls it on its network thread, where waiting for anything would stop the heartbeats: it takes notes,
    and the member acts on them after its poll.
    """

    def __init__(self) -> None:
        self.consumer: KafkaConsumer | None = None
        self.new: set[TopicPartition] = set()
        self.ready: set[TopicPartition] = set()

    @property
    def settled(self) -> bool:
        """Whether this member has partitions, or none for now: a group may have more members than partitions, of which
        some wait to take over. One that has only just come is given none, too, until the others have let go of its
        share.

        To be asked before a poll, since the state is the new one a moment before the partitions come.
        """
        return bool(self.ready) or self.consumer.group_metadata().state == MemberState.STABLE

    def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        self.consumer.pause(*assigned)  # until they are prepared
        self.new.update(assigned)

    def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        self.new.difference_update(revoked)
        self.ready.difference_update(revoked)
