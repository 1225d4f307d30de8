"""All that a worker asks of Kafka: a narrow door, behind which another client, or a simulated broker, can stand."""

import queue
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol

from kafka import TopicPartition

from model.settings.updater import UpdaterConfig
from streaming.kafka.changelog import Change, read_committed, read_range
from streaming.kafka.transactions import Message

Offsets = Mapping[TopicPartition, int]


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

    def records(self, ranges: Mapping[TopicPartition, tuple[int, int]]) -> Reading:
        """The records between two offsets of some partitions, in lists of one partition each."""

    def close(self) -> None: ...


class Restoring:
    """A port's readings beside the work: by consumers of their own without a group, whatever client the member is."""

    def __init__(self, config: UpdaterConfig):
        self._config = config

    def changelog(self, partitions: list[TopicPartition], starts: Offsets, bundle: str) -> Reading:
        return Background(read_committed(self._config, partitions, bundle, dict(starts)))

    def records(self, ranges: Mapping[TopicPartition, tuple[int, int]]) -> Reading:
        return Background(
            records for p, (start, stop) in ranges.items() for records in read_range(self._config, p, start, stop)
        )


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


class ClientMissing(RuntimeError):
    """The Kafka client that the settings ask for is not installed. The message says what to install."""


def port_of(config: UpdaterConfig, group: str, topic: str, name: str, batch: int = 500, linger_ms: int = 0) -> Port:
    """The port to a real cluster, by the client of the settings.

    Args:
        group: The consumer group.
        topic: What its members read.
        name: This member's, the same after a restart.
        batch: At most so many records a poll.
        linger_ms: How long the broker collects records before it answers; 0: it does not.

    Raises:
        ClientMissing: the client is not installed.
    """
    if config.kafka_client == "kafka-python":
        from streaming.kafka.kafka_python import KafkaPort

        return KafkaPort(config, group, topic, name, batch, linger_ms)
    try:
        from streaming.kafka.confluent import ConfluentPort
    except ModuleNotFoundError as error:
        raise ClientMissing(
            "the setting updater.kafka_client: confluent-kafka is not installed here: install the extra confluent "
            "(requirements/confluent.lock has the updater and it)"
        ) from error
    return ConfluentPort(config, group, topic, name, batch, linger_ms)
