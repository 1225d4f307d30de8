"""All that a worker asks of Kafka: a narrow door, behind which another client, or a simulated broker, can stand."""

import queue
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import IllegalStateError, KafkaError
from kafka.structs import MemberState

from model.settings.updater import UpdaterConfig
from streaming.kafka.assignment import Partitions
from streaming.kafka.changelog import Change, changes, read_committed, read_range
from streaming.kafka.clients import close_quietly, free_consumer, group_consumer, partitions_of
from streaming.kafka.transactions import Message, Transactions

Offsets = Mapping[TopicPartition, int]
_FOLLOWED = 4  # changelog records at a time: a batch of clicks waits for them


class Member(NamedTuple):
    """Who this worker is in its group: what Kafka compares when it commits. ``group`` is for the client alone."""

    member: str
    generation: int
    stable: bool = True
    group: Any = None

    @property
    def identity(self) -> tuple[str, int]:
        return self.member, self.generation


class Reading(Protocol):
    """Something that is read beside the work."""

    done: bool

    def take(self, seconds: float) -> list[Any]:
        """What has been read meanwhile, as much as can be handled in that time; raises what the reading raised."""


class Port(Protocol):
    """A member of a consumer group that commits what it makes of its records together with their offsets.

    Every method may raise ``KafkaError``, ``TimeoutError`` or ``OSError``: the worker then opens the port anew.
    """

    def open(self) -> None:
        """Join the group; end the transaction that an earlier holder of this name has open."""

    def poll(self, timeout_ms: int) -> dict[TopicPartition, list[Any]]:
        """Records of the partitions that have been resumed."""

    def member(self) -> Member: ...

    def changes(self) -> tuple[set[TopicPartition], set[TopicPartition]]:
        """Partitions that were lost, and gained (paused), since the last call."""

    def pause(self, partition: TopicPartition) -> None: ...

    def resume(self, partition: TopicPartition, offset: int) -> bool:
        """Read on from an offset; False if the partition is another member's by now."""

    def position(self, partition: TopicPartition) -> int:
        """Where the client reads next: after the last polled record, or after marks that it has skipped."""

    def committed(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int | None]:
        """The group's offsets, after the transactions that would change them."""

    def ends(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """Where some partitions of the source end."""

    def commit(self, messages: list[Message], offsets: Offsets, member: Member) -> None:
        """All of it or nothing.

        Raises:
            TransactionError: it failed, and whether it took effect is not known.
        """

    def renew(self) -> None:
        """After a failed commit: take the transactional id again, which ends the open transaction."""

    def changelog(self, partitions: list[TopicPartition], starts: Offsets, bundle: str) -> Reading:
        """The :class:`Change` records of a bundle in changelog partitions, to their end, open transactions included."""

    def partitions(self, topic: str) -> set[TopicPartition]:
        """Those of a changelog."""

    def follow(
        self, partitions: list[TopicPartition], starts: Offsets, bundle: str, seconds: float
    ) -> Iterable[Change]:
        """The :class:`Change` records of a bundle that have come in changelog partitions, as many as can be handled in
        that time; without waiting.

        Args:
            starts: Where to go on in each, behind what was handed out before; of others, at the oldest record.
        """

    def records(self, ranges: Mapping[TopicPartition, tuple[int, int]]) -> Reading:
        """The records between two offsets of some partitions, in lists of one partition each."""

    def close(self) -> None: ...


class KafkaPort:
    """The port to a real cluster, by kafka-python."""

    def __init__(self, config: UpdaterConfig, group: str, topic: str, name: str, **options: Any):
        self._config, self._group, self._topic, self._name, self._options = config, group, topic, name, options
        self._transactions = Transactions(config, f"{group}-{config.instance}")
        self._partitions = Partitions()
        self._consumer: KafkaConsumer = None  # until it is opened
        self._follower: KafkaConsumer | None = None

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

    def changelog(self, partitions: list[TopicPartition], starts: Offsets, bundle: str) -> Reading:
        return Background(read_committed(self._config, partitions, bundle, dict(starts)))

    def partitions(self, topic: str) -> set[TopicPartition]:
        self._follower = free_consumer(self._config, auto_offset_reset="none", max_poll_records=_FOLLOWED)
        return set(partitions_of(self._follower, topic))

    def follow(
        self, partitions: list[TopicPartition], starts: Offsets, bundle: str, seconds: float
    ) -> Iterator[Change]:
        assert self._follower is not None, "partitions comes first"
        if self._follower.assignment() != set(partitions):
            self._follower.assign(partitions)
            begins = self._follower.beginning_offsets([p for p in partitions if p not in starts])
            for partition in partitions:
                self._follower.seek(partition, starts.get(partition, begins.get(partition)))
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and (polled := self._follower.poll(timeout_ms=0)):
            for records in polled.values():
                yield from changes(records, bundle)

    def records(self, ranges: Mapping[TopicPartition, tuple[int, int]]) -> Reading:
        return Background(
            records for p, (start, stop) in ranges.items() for records in read_range(self._config, p, start, stop)
        )

    def close(self) -> None:
        self._transactions.close()
        for consumer in (self._consumer, self._follower):
            if consumer is not None:
                close_quietly(consumer, 2)
        self._consumer = self._follower = None


class Background:
    """Runs an iterator on a thread of its own: reading a long changelog must not keep a member from polling."""

    def __init__(self, source: Iterator[Change | list[Any]]):
        self.done = False
        self._queue: queue.Queue = queue.Queue(maxsize=64)
        threading.Thread(target=self._run, args=(source,), name="restore", daemon=True).start()

    def _run(self, source: Iterator[Change | list[Any]]) -> None:
        try:
            for item in source:
                self._queue.put(item)
            self._queue.put(_END)
        except BaseException as error:  # raised on the thread that takes
            self._queue.put(error)

    def take(self, seconds: float) -> list[Any]:
        items: list[Any] = []
        deadline = time.monotonic() + seconds
        while not self.done and (left := deadline - time.monotonic()) > 0:
            try:
                item = self._queue.get(timeout=left)
            except queue.Empty:
                break
            if isinstance(item, BaseException):
                raise item
            if item is _END:
                self.done = True
            else:
                items.append(item)
        return items


_END = object()
