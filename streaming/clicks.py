"""The edge: raw records become arrays of valid clicks, and what is not a click is set aside with its reason."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from kafka import KafkaProducer
from kafka.errors import KafkaError

from feature_repo.event_rule import EventRule
from model.click import Click, ClickValidator, InvalidClick, Record
from model.forgetting import Forgotten, Listed
from model.partitioner import partitions_of
from model.settings.updater import KafkaConnection
from streaming.kafka.clients import RETRY, close_quietly

Array = np.ndarray
_KEPT_BYTES = 900_000  # with its headers a dead letter must still fit into a record, or it would stop the stream


@dataclass(frozen=True)
class Clicks:
    """N valid events in the order of their records: ids, event times [N] ms, where in ``clicks`` they stand, and what
    each weighs as a click [N] by the rule of the card; above 0 it is one."""

    event_ids: list[str]
    query_ids: list[str]
    item_ids: list[str]
    times: Array
    partitions: Array
    offsets: Array
    weights: Array

    def __len__(self) -> int:
        return len(self.query_ids)

    def keep(self, chosen: Array) -> "Clicks":
        """Those that a mask [N] chooses."""
        if chosen.all():
            return self
        rows = np.flatnonzero(chosen).tolist()
        event_ids, query_ids, item_ids = (
            [ids[row] for row in rows] for ids in (self.event_ids, self.query_ids, self.item_ids)
        )
        return Clicks(
            event_ids, query_ids, item_ids,
            self.times[chosen], self.partitions[chosen], self.offsets[chosen], self.weights[chosen],
        )  # fmt: skip


class Rejected(NamedTuple):
    """A record that is not a click: why, where it stands, when it was written, and its bytes."""

    kind: str
    reason: str
    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes

    @classmethod
    def of(cls, record: Any, kind: str, reason: str) -> "Rejected":
        """A record of any topic of the loop."""
        where = (record.topic, record.partition, record.offset, record.timestamp)
        return cls(kind, reason, *where, record.key, record.value or b"")

    @property
    def headers(self) -> list[tuple[str, bytes]]:
        """What the dead letter's headers say."""
        where: dict[str, Any] = {"kind": self.kind, "reason": self.reason, "topic": self.topic}
        where |= {"partition": self.partition, "offset": self.offset, "timestamp": self.timestamp}
        if len(self.value) > _KEPT_BYTES:
            where["truncated_from_bytes"] = len(self.value)
        return [(name, str(value).encode()) for name, value in where.items()]

    @property
    def kept(self) -> bytes:
        """The original bytes, but for the tail of a record that a header could push over the size limit."""
        return self.value[:_KEPT_BYTES]


def decode(records: list[Any], validate: ClickValidator, rule: EventRule) -> tuple[Clicks, list[Rejected], Listed]:
    """Sort records (kafka-python's) into events, rejects and queries that are forgotten here, by the one verdict of
    :mod:`model.click`."""
    clicks: list[Click] = []
    forgotten: Listed = {}
    places: list[tuple[int, int]] = []
    rejects: list[Rejected] = []
    verdicts = validate(Record(r.key, r.value, r.partition, r.timestamp) for r in records)
    for record, verdict in zip(records, verdicts, strict=True):
        if isinstance(verdict, Click):
            clicks.append(verdict)
            places.append((record.partition, record.offset))
        elif isinstance(verdict, InvalidClick):
            rejects.append(Rejected.of(record, *verdict))
        else:
            forgotten[verdict.query_id] = Forgotten(
                before=verdict.forget_before, partition=record.partition, offset=record.offset
            )
    where = np.array(places, np.int64).reshape(-1, 2)
    return (
        Clicks(
            [click.event_id for click in clicks],
            [click.query_id for click in clicks],
            [click.item_id for click in clicks],
            np.array([click.event_time for click in clicks], np.int64),
            where[:, 0],
            where[:, 1],
            np.array([rule.weight(click.event_type, click.value) for click in clicks], np.float32),
        ),
        rejects,
        forgotten,
    )


class ClickWriter:
    """Writes clicks to Kafka, each acknowledged by all replicas before :meth:`write` returns. Thread-safe."""

    def __init__(self, connection: KafkaConnection | str, linger_ms: int = 0):
        self._connection = KafkaConnection(bootstrap=connection) if isinstance(connection, str) else connection
        self._linger_ms = linger_ms
        self._producer = self._open()

    def _open(self) -> KafkaProducer:
        return KafkaProducer(
            **self._connection.client, **RETRY, acks="all", linger_ms=self._linger_ms, batch_size=1 << 17,
            max_block_ms=10_000, request_timeout_ms=10_000, delivery_timeout_ms=60_000, metrics_enabled=False,
            allow_auto_create_topics=False,
        )  # fmt: skip

    def send(self, click: Click, headers: Sequence[tuple[str, bytes]] = ()) -> Any:
        """Queue a click; the future resolves to its place in the topic (``.partition``, ``.offset``)."""
        value = click.model_dump_json(exclude_none=True).encode()
        topic, partition = self._connection.topics.clicks, None  # the client's own choice is murmur2's
        if self._connection.partitioner != "murmur2":
            count = len(self._producer.partitions_for(topic))
            partition = int(partitions_of([click.query_id], count, self._connection.partitioner)[0])
        key = click.query_id.encode()
        return self._producer.send(topic, key=key, value=value, headers=list(headers), partition=partition)

    def write(self, click: Click, timeout_s: float = 10, headers: Sequence[tuple[str, bytes]] = ()) -> Any:
        """Send a click and wait for its acknowledgement.

        Raises:
            kafka.errors.KafkaError: the cluster did not take it.
        """
        return self._acknowledged(lambda: self.send(click, headers), timeout_s)

    def write_to(self, topic: str, key: str, value: bytes, timeout_s: float = 10) -> Any:
        """Send a record of another topic, and wait for its acknowledgement.

        Raises:
            kafka.errors.KafkaError: the cluster did not take it.
        """
        return self._acknowledged(lambda: self._producer.send(topic, key=key.encode(), value=value), timeout_s)

    def _acknowledged(self, send: Callable[[], Any], timeout_s: float) -> Any:
        producer = self._producer
        try:
            return send().get(timeout_s)
        except KafkaError:
            # After one record that was refused, an idempotent producer refuses every later one.
            if producer is self._producer:
                self._producer = self._open()
                close_quietly(producer)
            raise

    def flush(self) -> None:
        self._producer.flush()

    def close(self, timeout_s: float = 10) -> None:
        """Send what is left; clicks that were not acknowledged by then are lost, as their futures say."""
        close_quietly(self._producer, timeout_s)
