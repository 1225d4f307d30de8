"""The worker's port by confluent-kafka (librdkafka), with the same promises as kafka-python's."""

import contextlib
import logging
import queue
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import confluent_kafka
from confluent_kafka import KafkaException
from kafka import TopicPartition
from kafka.errors import FencedInstanceIdError, KafkaConnectionError, KafkaError, KafkaTimeoutError, for_code

from model.settings.updater import UpdaterConfig
from streaming.kafka.port import Member, Offsets, Restoring
from streaming.kafka.transactions import Message, TransactionError, Transactions

_RETRY = {"retry.backoff.ms": 20, "reconnect.backoff.ms": 50, "reconnect.backoff.max.ms": 1_000}
_PATIENCE_S = 30.0  # committed offsets are waited for while a transaction that would change them is open
_LOCAL = {
    code: of
    for of, codes in {
        KafkaTimeoutError: ("_TIMED_OUT", "_TIMED_OUT_QUEUE", "_MSG_TIMED_OUT"),
        KafkaConnectionError: ("_TRANSPORT", "_RESOLVE", "_ALL_BROKERS_DOWN"),
        FencedInstanceIdError: ("_FATAL",),  # of a consumer in a classic group there is no other
    }.items()
    for code in (getattr(confluent_kafka.KafkaError, name) for name in codes)
}


class Record(NamedTuple):
    """A record as kafka-python gives it."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]]


def _same(error: confluent_kafka.KafkaError) -> KafkaError:
    """kafka-python's error for one of librdkafka: brokers' codes are the same, its own are negative."""
    kind = for_code(error.code()) if error.code() > 0 else _LOCAL.get(error.code(), KafkaError)
    return kind(str(error))


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except KafkaException as error:
        raise _same(error.args[0]) from error


def _place(partition: TopicPartition, offset: int = confluent_kafka.OFFSET_INVALID) -> confluent_kafka.TopicPartition:
    return confluent_kafka.TopicPartition(partition.topic, partition.partition, offset)


class _Log:
    """librdkafka's log goes where kafka-python's does; whether it told that a connection has failed is kept."""

    failed = False

    def log(self, level: int, message: str, *arguments: str) -> None:
        self.failed = self.failed or arguments[:1] == ("FAIL",)
        logging.getLogger("kafka.confluent").log(level, message, *arguments)


class ConfluentProducer:
    """A transactional producer with the functions of :class:`~streaming.kafka.clients.TransactionalProducer`."""

    def __init__(self, config: UpdaterConfig, transactional_id: str):
        self._patience = config.transaction_timeout_ms / 1000
        self._log = _Log()
        self._producer: Any = confluent_kafka.Producer({
            **config.librdkafka, **_RETRY,
            "client.id": transactional_id, "transactional.id": transactional_id,
            "transaction.timeout.ms": config.transaction_timeout_ms, "linger.ms": 0, "logger": self._log,
        })  # fmt: skip

    @property
    def sent_again(self) -> bool:
        """Whether a request may have been sent again. librdkafka tells of the connection that failed, in its log, and
        of nothing else; the log comes with a poll."""
        self._producer.poll(0)
        return self._log.failed

    def init_transactions(self) -> None:
        with _translated():
            self._producer.init_transactions(self._patience)

    def begin_transaction(self) -> None:
        with _translated():
            self._producer.begin_transaction()

    def send_all(self, messages: Iterable[Message]) -> None:
        """Send records; librdkafka refuses the commit if one of them fails."""
        with _translated():
            for m in messages:
                self._producer.produce(m.topic, value=m.value, key=m.key, partition=m.partition, headers=[*m.headers])

    def send_offsets_to_transaction(self, offsets: Mapping[TopicPartition, int], group: Any) -> None:
        """librdkafka 2.16 does not keep to this call's limit where a connection breaks, and can stay in it for good.

        It is left there, on a thread of its own: the next holder of the id has a new epoch, so nothing comes of it.
        """
        places = [_place(partition, offset) for partition, offset in offsets.items()]
        send, outcome = self._producer.send_offsets_to_transaction, queue.SimpleQueue[BaseException | None]()

        def call() -> None:
            try:
                send(places, group, self._patience)
                outcome.put(None)
            except BaseException as error:  # raised on the thread that waits
                outcome.put(error)

        threading.Thread(target=call, name="offsets", daemon=True).start()
        try:
            error = outcome.get(timeout=self._patience + 1)
        except queue.Empty:
            raise KafkaTimeoutError("the offsets were not answered in time") from None
        if error is not None:
            with _translated():
                raise error

    def commit_transaction(self) -> None:
        with _translated():
            self._producer.commit_transaction(self._patience)

    def close(self, timeout_ms: int = 0) -> None:
        """Leave an open transaction as it is: its end comes with the next holder of the id."""
        if self._producer is not None:
            with _translated():
                self._producer.purge(blocking=False)
            self._producer = None


class ConfluentPort(Restoring):
    """A :class:`~streaming.kafka.port.Port` to a real cluster; see :func:`~streaming.kafka.port.port_of`.

    librdkafka tells of a rebalance within :meth:`poll`, and no other member is given a partition before it has.
    """

    def __init__(self, config: UpdaterConfig, group: str, topic: str, name: str, batch: int, linger_ms: int):
        super().__init__(config)
        self._topic, self._batch = topic, batch
        self._transactions = Transactions(config, f"{group}-{config.instance}", ConfluentProducer)
        self._options = {
            **config.librdkafka, **_RETRY,
            "client.id": name, "group.id": group, "group.instance.id": name, "isolation.level": "read_committed",
            "enable.auto.commit": False, "enable.auto.offset.store": False, "auto.offset.reset": "earliest",
            "partition.assignment.strategy": "cooperative-sticky", "session.timeout.ms": config.session_timeout_ms,
            "heartbeat.interval.ms": config.session_timeout_ms // 5, "enable.partition.eof": True,
            "fetch.wait.max.ms": linger_ms or config.fetch_max_wait_ms, "fetch.min.bytes": 1 << 16 if linger_ms else 1,
            "max.partition.fetch.bytes": 4 << 20, "fetch.queue.backoff.ms": 10, "logger": _Log(),
        }  # fmt: skip
        self._consumer: Any = None  # until it is opened

    def open(self) -> None:
        self._transactions.open()
        self._owned: set[TopicPartition] = set()
        self._lost: set[TopicPartition] = set()
        self._gained: set[TopicPartition] = set()
        self._ends: dict[TopicPartition, int] = {}
        self._settled = False
        with _translated():
            self._consumer = confluent_kafka.Consumer(self._options)
            self._consumer.subscribe([self._topic], on_assign=self._on_assign, on_revoke=self._on_revoke)

    def _on_assign(self, consumer: confluent_kafka.Consumer, assigned: list[confluent_kafka.TopicPartition]) -> None:
        # With an offset of ours, so that nothing is asked for and it can be sought at once. No record comes of it:
        # they are paused until their state is restored.
        consumer.incremental_assign([confluent_kafka.TopicPartition(p.topic, p.partition, 0) for p in assigned])
        consumer.pause(assigned)
        gained = {TopicPartition(p.topic, p.partition) for p in assigned}
        self._owned |= gained
        self._gained |= gained
        self._settled = True

    def _on_revoke(self, _: confluent_kafka.Consumer, revoked: list[confluent_kafka.TopicPartition]) -> None:
        lost = {TopicPartition(p.topic, p.partition) for p in revoked}
        self._owned -= lost
        self._gained -= lost
        self._lost |= lost

    def poll(self, timeout_ms: int) -> dict[TopicPartition, list[Any]]:
        with _translated():
            first = self._consumer.poll(timeout_ms / 1000)
            # What else is here already: asked for so many, consume() would wait for them.
            polled = [] if first is None else [first, *self._consumer.consume(self._batch - 1, 0)]
        records: dict[int, list[Record]] = {}
        for m in polled:
            if (error := m.error()) is None:
                record = Record(
                    m.topic(), m.partition(), m.offset(), m.timestamp()[1], m.key(), m.value(), m.headers() or []
                )
                records.setdefault(record.partition, []).append(record)
            elif error.code() == confluent_kafka.KafkaError._PARTITION_EOF:
                self._ends[TopicPartition(m.topic(), m.partition())] = m.offset()
            else:
                raise _same(error)
        return {TopicPartition(self._topic, partition): found for partition, found in records.items()}

    def member(self) -> Member:
        group = self._consumer.consumer_group_metadata()
        generation = int.from_bytes(group[7:11], sys.byteorder, signed=True)  # behind "CGMDv2:"
        return Member(self._consumer.memberid() or "", generation, self._settled and generation >= 0, group)

    def changes(self) -> tuple[set[TopicPartition], set[TopicPartition]]:
        lost, gained, self._lost, self._gained = self._lost, self._gained, set(), set()
        return lost, gained

    def pause(self, partition: TopicPartition) -> None:
        if partition in self._owned:
            with _translated():
                self._consumer.pause([_place(partition)])

    def resume(self, partition: TopicPartition, offset: int) -> bool:
        if partition not in self._owned:
            return False
        self._ends.pop(partition, None)
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            try:
                self._consumer.seek(_place(partition, offset))
                break
            except KafkaException as error:  # it has been assigned just now, on another thread
                if error.args[0].code() != confluent_kafka.KafkaError._STATE or time.monotonic() > deadline:
                    raise _same(error.args[0]) from error
                time.sleep(0.002)
        with _translated():
            self._consumer.resume([_place(partition)])
        return True

    def position(self, partition: TopicPartition) -> int:
        return self._ends.get(partition, 0)

    def committed(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int | None]:
        wanted = [_place(partition) for partition in partitions]
        with _translated():
            found = self._consumer.committed(wanted, _PATIENCE_S) if wanted else []
        for place in found:
            if place.error is not None:
                raise _same(place.error)
        return {TopicPartition(p.topic, p.partition): p.offset if p.offset >= 0 else None for p in found}

    def ends(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        with _translated():
            return {p: self._consumer.get_watermark_offsets(_place(p), _PATIENCE_S)[1] for p in partitions}

    def commit(self, messages: list[Message], offsets: Offsets, member: Member) -> None:
        if member.generation < 0:  # a group without members takes anybody's offsets
            raise TransactionError("not a member of the group")
        self._transactions.commit(messages, offsets, member.group)

    def renew(self) -> None:
        self._transactions.open()

    def close(self) -> None:
        self._transactions.close()
        if self._consumer is not None:
            with contextlib.suppress(KafkaException):
                self._consumer.close()
            self._consumer = None
