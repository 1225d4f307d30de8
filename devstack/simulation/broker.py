"""A Kafka cluster in memory: logs with transactions (v1), consumer groups with static members, and a clock.

It has the calls that clients send, with the answers of a real broker; ``tests/devstack/test_simulated_broker.py`` holds
it to one. Time passes only by :meth:`Cluster.pass_time`, so a history is a function of its seed.
"""

from collections import defaultdict
from dataclasses import dataclass, field
from random import Random
from typing import Any, NamedTuple

from kafka import TopicPartition
from kafka.errors import (
    FencedInstanceIdError,
    IllegalGenerationError,
    InvalidProducerEpochError,
    InvalidTxnStateError,
    UnknownMemberIdError,
)

SESSION, TRANSACTION = 60, 80  # ticks after which a silent member, and an open transaction, are given up


class Record(NamedTuple):
    """A record as a consumer gets it."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: Any
    headers: list[tuple[str, bytes]]


@dataclass
class _Entry:
    record: Record
    producer: int | None = None
    state: str = "committed"  # or open, aborted, marker


@dataclass
class _Transaction:
    """What the coordinator knows of a transactional id."""

    producer: int
    epoch: int = 0
    state: str = "empty"
    began: int = 0
    partitions: set[TopicPartition] = field(default_factory=set)
    groups: set[str] = field(default_factory=set)


@dataclass
class _Member:
    instance: str
    seen: int
    claims: set[TopicPartition] | None = None  # of the rebalance that is going on; None: it has not joined


class Group:
    """A consumer group: its generation, its members, its offsets, and offsets of open transactions."""

    def __init__(self, partitions: list[TopicPartition], random: Random):
        self.partitions, self._random = partitions, random
        self.generation, self.rebalancing = 0, False
        self.members: dict[str, _Member] = {}
        self.fenced: set[str] = set()
        self.assigned: dict[str, set[TopicPartition]] = {}
        self.offsets: dict[TopicPartition, int] = {}
        self.places: dict[TopicPartition, Any] = {}
        """Offsets with a text beside them, of a group that commits without transactions."""
        self.pending: dict[int, dict[TopicPartition, int]] = {}
        self._ids = 0

    def expire(self, now: int) -> None:
        gone = [name for name, member in self.members.items() if member.seen + SESSION < now]
        for name in gone:
            del self.members[name]
            self.assigned.pop(name, None)
            self.rebalancing = True
        if gone:
            self._complete()

    def check(self, member: str, generation: int | None = None) -> None:
        if member in self.fenced:
            raise FencedInstanceIdError
        if member not in self.members:
            raise UnknownMemberIdError
        if generation is not None and generation != self.generation:
            raise IllegalGenerationError

    def join(self, instance: str, member: str | None, claims: set[TopicPartition], now: int) -> str:
        if member is None:
            self._ids += 1
            for name in [name for name, other in self.members.items() if other.instance == instance]:
                del self.members[name]
                self.assigned.pop(name, None)
                self.fenced.add(name)
            member = f"{instance}#{self._ids}"
            self.members[member] = _Member(instance, now)
        self.check(member)
        self.members[member].seen, self.members[member].claims = now, set(claims)
        self.rebalancing = True
        self._complete()
        return member

    def leave(self, member: str) -> None:
        if self.members.pop(member, None):
            self.assigned.pop(member, None)
            self.rebalancing = True
            self._complete()

    def _complete(self) -> None:
        """End the rebalance once all members have joined: partitions stay where they are claimed, as far as is fair."""
        claims = {name: member.claims for name, member in self.members.items() if member.claims is not None}
        if not claims or len(claims) < len(self.members):
            return
        self.generation += 1
        self.rebalancing = False
        owned: dict[str, set[TopicPartition]] = {name: set() for name in self.members}
        free = []
        for partition in self.partitions:
            claimants = sorted(name for name, claimed in claims.items() if partition in claimed)
            if claimants:
                owned[self._random.choice(claimants)].add(partition)
            else:
                free.append(partition)
        for partition in free:
            min(owned.items(), key=lambda item: (len(item[1]), item[0]))[1].add(partition)
        most, least = max(map(len, owned.values())), min(map(len, owned.values()))
        if most - least > 1:  # its owner lets go of one; who gets it is told by the next rebalance
            loser = min(name for name, some in owned.items() if len(some) == most)
            owned[loser].remove(self._random.choice(sorted(owned[loser])))
            self.rebalancing = True
        self.assigned = owned
        for member in self.members.values():
            member.claims = None


class Cluster:
    """All topics, coordinators and the clock."""

    def __init__(self, random: Random, topics: dict[str, int]):
        self.now = 0
        self.logs: dict[TopicPartition, list[_Entry]] = {
            TopicPartition(name, p): [] for name, count in topics.items() for p in range(count)
        }
        self._random = random
        self._transactions: dict[str, _Transaction] = {}
        self._sequences: dict[tuple[int, TopicPartition], tuple[int, int]] = defaultdict(lambda: (0, -1))
        self._groups: dict[str, Group] = {}
        self.arrow: dict[tuple, Any] = {}
        """Records as the sinks take them."""

    def pass_time(self, ticks: int = 1) -> None:
        """Let time pass, and what is overdue happen."""
        self.now += ticks
        for group in self._groups.values():
            group.expire(self.now)
        for transaction in self._transactions.values():
            if transaction.state == "ongoing" and transaction.began + TRANSACTION < self.now:
                transaction.epoch += 1
                self._end(transaction, False)

    def group(self, name: str, *topics: str) -> Group:
        if name not in self._groups:
            partitions = [partition for partition in self.logs if partition.topic in topics]
            self._groups[name] = Group(partitions, self._random)
        return self._groups[name]

    # -- logs ---------------------------------------------------------------------------------------------------------

    def append(self, topic: str, partition: int, value: Any, key: bytes | None = None) -> None:
        """A record of a producer without transactions."""
        self._append(TopicPartition(topic, partition), value, key, [], None)

    def _append(
        self, partition: TopicPartition, value: Any, key: bytes | None, headers: list, producer: int | None
    ) -> None:
        log = self.logs[partition]
        record = Record(partition.topic, partition.partition, len(log), self.now, key, value, headers)
        log.append(_Entry(record, producer, "committed" if producer is None else "open"))

    def end(self, partition: TopicPartition, committed: bool = True) -> int:
        """Where a log ends: its last stable offset, or its high watermark."""
        log = self.logs[partition]
        return next((e.record.offset for e in log if e.state == "open"), len(log)) if committed else len(log)

    def fetch(self, partition: TopicPartition, offset: int, limit: int = 1 << 30) -> tuple[list[Record], int]:
        """Committed records from an offset on, and the offset to go on from."""
        records: list[Record] = []
        for entry in self.logs[partition][offset : self.end(partition)]:
            if len(records) == limit:
                break
            offset = entry.record.offset + 1
            if entry.state == "committed":
                records.append(entry.record)
        return records, offset

    # -- transactions -------------------------------------------------------------------------------------------------

    def init_producer(self, id_: str) -> tuple[int, int]:
        transaction = self._transactions.get(id_)
        if transaction is None:
            transaction = self._transactions[id_] = _Transaction(len(self._transactions))
        if transaction.state == "ongoing":
            self._end(transaction, False)
        transaction.epoch += 1
        transaction.state = "empty"
        return transaction.producer, transaction.epoch

    def _of(self, id_: str, epoch: int) -> _Transaction:
        transaction = self._transactions[id_]
        if epoch != transaction.epoch:
            raise InvalidProducerEpochError
        return transaction

    def add_partitions(self, id_: str, epoch: int, partitions: set[TopicPartition], group: str | None = None) -> None:
        transaction = self._of(id_, epoch)
        if transaction.state != "ongoing":
            transaction.state, transaction.began = "ongoing", self.now
        transaction.partitions |= partitions
        if group:
            transaction.groups.add(group)

    def produce(self, id_: str, epoch: int, sequence: int, messages: dict[TopicPartition, list]) -> None:
        """Records of a transaction; each partition's batch has the sequence number of its first record."""
        transaction = self._of(id_, epoch)
        for partition, batch in messages.items():
            last_epoch, last = self._sequences[transaction.producer, partition]
            last = last if last_epoch == epoch else -1
            if sequence <= last:
                continue  # a batch that was sent again
            if transaction.state != "ongoing" or partition not in transaction.partitions:
                raise InvalidTxnStateError
            self._sequences[transaction.producer, partition] = epoch, sequence
            for message in batch:
                self._append(partition, message.value, message.key, message.headers, transaction.producer)

    def commit_offsets(
        self, id_: str, epoch: int, group: str, topics: tuple[str, ...], member: str, generation: int, offsets: dict
    ) -> None:
        transaction = self._of(id_, epoch)
        if transaction.state != "ongoing" or group not in transaction.groups:
            raise InvalidTxnStateError  # since Kafka 3.6 brokers verify that the transaction knows of it
        self.group(group, *topics).check(member, generation)
        self.group(group, *topics).pending.setdefault(transaction.producer, {}).update(offsets)

    def end_transaction(self, id_: str, epoch: int, commit: bool) -> None:
        transaction = self._of(id_, epoch)
        if transaction.state == "ongoing":
            self._end(transaction, commit)
        elif transaction.state != ("committed" if commit else "aborted"):
            raise InvalidTxnStateError

    def _end(self, transaction: _Transaction, commit: bool) -> None:
        state = "committed" if commit else "aborted"
        for partition in transaction.partitions:
            for entry in self.logs[partition]:
                if entry.state == "open" and entry.producer == transaction.producer:
                    entry.state = state
            self._append(partition, None, None, [], None)
            self.logs[partition][-1].state = "marker"
        for name in transaction.groups:
            offsets = self._groups[name].pending.pop(transaction.producer, {})
            if commit:
                self._groups[name].offsets.update(offsets)
        transaction.state = state
        transaction.partitions, transaction.groups = set(), set()
