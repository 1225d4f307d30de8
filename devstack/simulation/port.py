"""The worker's port to a simulated cluster, with what can go wrong between any two calls.

The client behaves as kafka-python does: it sends a request again when the connection ends before the answer, its first
sending may arrive much later, and a member that was put out of its group while it joined gets its partitions back
without being told that it had lost them.
"""

import contextlib
from collections.abc import Callable, Iterable, Mapping
from random import Random
from typing import Any

from kafka import TopicPartition
from kafka.errors import KafkaConnectionError, KafkaError, OffsetOutOfRangeError, UnknownMemberIdError

from devstack.simulation.broker import Cluster, Group, Record
from streaming.kafka.changelog import DRIFT, NEXT, Change
from streaming.kafka.port import Member, Offsets
from streaming.kafka.transactions import Message, TransactionError


class Crash(BaseException):
    """The process is gone at this point."""


class Faults:
    """What goes wrong, by chance: asked at every request that a client sends.

    Args:
        interlude: Lets time pass and others work while this client's process is frozen.
    """

    def __init__(self, random: Random, interlude: Callable[[int], None]):
        self._random, self.interlude = random, interlude
        self.on = True
        self.late: list[Callable[[], Any]] = []

    def happens(self, chance: float) -> bool:
        return self.on and self._random.random() < chance

    def deliver_late(self) -> None:
        """A request whose connection ended long ago arrives."""
        if self.late:
            late = self.late.pop(self._random.randrange(len(self.late)))
            with contextlib.suppress(KafkaError):
                late()


class Read:
    """A reading that waits for nothing but its source."""

    def __init__(self, source: Callable[[], list[Any] | None]):
        self._source, self.done = source, False

    def take(self, seconds: float) -> list[Any]:
        items = self._source()
        self.done = items is not None
        return items or []


class SimulatedPort:
    """A member of a group on the cluster."""

    def __init__(
        self, cluster: Cluster, faults: Faults, random: Random, group: str, topics: tuple[str, ...], name: str,
        limit: int,
    ):  # fmt: skip
        self.cluster, self.faults, self.random = cluster, faults, random
        self.group_name, self.topics, self.name, self.limit = group, topics, name, limit
        self.id = f"{group}-{name}"
        self._sequence = 0
        self._open = False

    @property
    def group(self) -> Group:
        return self.cluster.group(self.group_name, *self.topics)

    def _call(self, request: Callable[[], Any], transactional: bool = False) -> Any:
        """Send one request: the process may die or freeze before or after it, and the answer may be lost."""
        for _ in range(3):
            self._trouble()
            answer = request()
            self.cluster.pass_time()
            self._trouble()
            if not self.faults.happens(0.02):
                return answer
            if not transactional:
                raise KafkaConnectionError("the answer was lost")
            self._sent_again = True  # the client sends it again on a new connection
            if self.faults.happens(0.5):
                self.faults.late.append(request)
        raise KafkaConnectionError("no answer")

    def _trouble(self) -> None:
        if self.faults.happens(0.004):
            raise Crash
        if self.faults.happens(0.01):
            self.faults.interlude(self.random.choice((1, 3, 10, 30)))
        if self.faults.happens(0.02):
            self.faults.deliver_late()

    # -- the port -----------------------------------------------------------------------------------------------------

    def open(self) -> None:
        if not self._open:
            self._renew()
        self._reset()

    def _reset(self) -> None:
        self._member: str | None = None
        self._generation = -1
        self._joining = False
        self._owned: set[TopicPartition] = set()
        self._positions: dict[TopicPartition, int] = {}
        self._gained: set[TopicPartition] = set()
        self._lost: set[TopicPartition] = set()

    def _renew(self) -> None:
        _, self._epoch = self._call(lambda: self.cluster.init_producer(self.id))
        self._sent_again, self._open = False, True

    def poll(self, timeout_ms: int) -> dict[TopicPartition, list[Record]]:
        self._trouble()
        self.cluster.pass_time()
        self._stay()
        records: dict[TopicPartition, list[Record]] = {}
        left = self.limit
        for partition, position in sorted(self._positions.items()):
            if left and (batch := self.cluster.fetch(partition, position, left))[1] != position:
                left -= len(batch[0])
                records[partition], self._positions[partition] = batch
        return records

    def _stay(self) -> None:
        """Heartbeat, and join where there is joining to be done."""
        group = self.group
        try:
            if self._member is not None:
                group.check(self._member)
                group.members[self._member].seen = self.cluster.now
        except UnknownMemberIdError:
            if not self._joining:
                self._take({})  # told of its loss
            # else kafka-python does not tell, and claims again what it takes for its own
            self._member, self._joining = None, False
        stale = self._member is None or self._generation != group.generation or group.rebalancing
        if not stale:
            return
        if self._member is None or (group.rebalancing and group.members[self._member].claims is None):
            self._member = group.join(self.name, self._member, self._owned, self.cluster.now)
            self._joining = True
        if group.members[self._member].claims is None and self._generation != group.generation:
            self._generation, self._joining = group.generation, False
            self._take(group.assigned[self._member])

    def _take(self, assigned: Iterable[TopicPartition]) -> None:
        assigned = set(assigned)
        lost, gained = self._owned - assigned, assigned - self._owned
        self._owned = assigned
        self._lost |= lost
        self._gained = (self._gained - lost) | gained
        for partition in lost | gained:
            self._positions.pop(partition, None)

    def member(self) -> Member:
        return Member(self._member or "", self._generation, not self._joining and not self.group.rebalancing)

    def changes(self) -> tuple[set[TopicPartition], set[TopicPartition]]:
        lost, gained, self._lost, self._gained = self._lost, self._gained, set(), set()
        return lost, gained

    def pause(self, partition: TopicPartition) -> None:
        self._positions.pop(partition, None)

    def resume(self, partition: TopicPartition, offset: int) -> bool:
        if partition in self._owned:
            self._positions[partition] = offset
        return partition in self._owned

    def position(self, partition: TopicPartition) -> int:
        return self._positions.get(partition, 0)

    def committed(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int | None]:
        wanted = list(partitions)
        while any(p in offsets for offsets in self.group.pending.values() for p in wanted):
            self.faults.interlude(3)  # Kafka answers once the transactions have ended
        offsets = self.group.offsets
        return self._call(lambda: {p: offsets.get(p) for p in wanted})

    def ends(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        return {partition: self.cluster.end(partition) for partition in partitions}

    def commit(self, messages: list[Message], offsets: Offsets, member: Member) -> None:
        batches: dict[TopicPartition, list[Message]] = {}
        for message in messages:
            batches.setdefault(TopicPartition(message.topic, message.partition), []).append(message)
        cluster, id_ = self.cluster, self.id
        try:
            if not self._open:
                self._renew()
            epoch, sequence = self._epoch, self._sequence
            self._sequence += 1
            self._call(lambda: cluster.add_partitions(id_, epoch, set(batches), self.group_name), True)
            self._call(lambda: cluster.produce(id_, epoch, sequence, batches), True)
            self._send_offsets(offsets, member, epoch)
            self._call(lambda: cluster.end_transaction(id_, epoch, True), True)
        except KafkaError as error:
            self._open = False
            raise TransactionError(repr(error)) from error
        if self._sent_again:
            self._open = False  # as streaming.kafka.transactions does: the next one has a new epoch

    def _send_offsets(self, offsets: Offsets, member: Member, epoch: int) -> None:
        name, generation, taken = member.member, member.generation, dict(offsets)
        commit = self.cluster.commit_offsets
        self._call(lambda: commit(self.id, epoch, self.group_name, self.topics, name, generation, taken), True)

    def renew(self) -> None:
        if not self._open:
            self._renew()

    def changelog(self, partitions: list[TopicPartition], starts: Offsets, bundle: str) -> Read:
        ends = {p: self.cluster.end(p, committed=False) for p in partitions}

        def source() -> list[Change] | None:
            self._trouble()
            if any(self.cluster.end(p) < end for p, end in ends.items()):
                return None
            return [change(record) for p in partitions for record in self.cluster.fetch(p, starts.get(p, 0))[0]]

        return Read(source)

    def partitions(self, topic: str) -> set[TopicPartition]:
        self._trouble()
        return {partition for partition in self.cluster.logs if partition.topic == topic}

    def follow(self, partitions: list[TopicPartition], starts: Offsets, bundle: str, seconds: float) -> list[Change]:
        self._trouble()
        if self.random.random() < 0.02:
            raise OffsetOutOfRangeError  # retention has deleted what comes next
        return [
            change(record)
            for p in partitions
            if self.random.random() < 0.5
            for record in self.cluster.fetch(p, starts.get(p, 0), 3)[0]
        ]

    def records(self, ranges: Mapping[TopicPartition, tuple[int, int]]) -> Read:
        return Read(
            lambda: [
                [r for r in self.cluster.fetch(p, start)[0] if r.offset < stop] for p, (start, stop) in ranges.items()
            ]
        )

    def close(self) -> None:
        """A client that closes leaves its group to notice: members are static."""


def change(record: Record) -> Change:
    """A record of a changelog, as its readers take it."""
    headers = dict(record.headers)
    next_, _, source = headers.get(NEXT, b"0").decode().partition(" ")
    return Change(record.partition, int(next_), source, record.value, DRIFT in headers, offset=record.offset)
