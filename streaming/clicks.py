"""The edge: raw records become arrays of valid clicks, and what is not a click is set aside with its reason."""

import time
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from kafka import KafkaProducer
from kafka.errors import KafkaError
from pydantic import ValidationError

from feature_repo.click_event import Click
from streaming.clients import RETRY, close_quietly
from streaming.config import KafkaConnection
from streaming.topics import CLICKS

Array = np.ndarray
_LOG_APPEND_TIME = 1
_KEPT_BYTES = 900_000  # with its headers a dead letter must still fit into a record, or it would stop the stream


@dataclass(frozen=True)
class Clicks:
    """N valid clicks in the order of their records: ids, event times [N] ms, and where in ``clicks`` they stand."""

    event_ids: list[str]
    query_ids: list[str]
    item_ids: list[str]
    times: Array
    partitions: Array
    offsets: Array

    def __len__(self) -> int:
        return len(self.query_ids)

    def keep(self, chosen: Array) -> "Clicks":
        """Those that a mask [N] chooses."""
        if chosen.all():
            return self
        return Clicks(
            *([key for key, kept in zip(ids, chosen.tolist(), strict=True) if kept]
              for ids in (self.event_ids, self.query_ids, self.item_ids)),
            self.times[chosen], self.partitions[chosen], self.offsets[chosen],
        )  # fmt: skip


class Rejected(NamedTuple):
    """A record that is not a click: why, where it stands, and its bytes."""

    reason: str
    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes

    @property
    def headers(self) -> list[tuple[str, bytes]]:
        """What the dead letter's headers say."""
        where = {"reason": self.reason, "topic": self.topic, "partition": self.partition, "offset": self.offset}
        if len(self.value) > _KEPT_BYTES:
            where["truncated_from_bytes"] = len(self.value)
        return [(name, str(value).encode()) for name, value in where.items()]

    @property
    def kept(self) -> bytes:
        """The original bytes, but for the tail of a record that a header could push over the size limit."""
        return self.value[:_KEPT_BYTES]


def decode(records: list[Any], clock_skew_ms: int) -> tuple[Clicks, list[Rejected]]:
    """Sort records (kafka-python's) into clicks and rejects.

    A click is rejected if it is not JSON, lacks a field or has one of the wrong type, has an absurd time or one that
    is more than ``clock_skew_ms`` ahead of the broker's clock, or is not keyed by its query: Kafka would then
    deliver one query's clicks to two workers, and its vector would have two writers.
    """
    clicks: list[Click] = []
    places: list[tuple[int, int]] = []
    rejects: list[Rejected] = []
    now = int(time.time() * 1000)
    for record in records:
        reason = None
        try:
            click = Click.model_validate_json(record.value or b"")
        except ValidationError as error:
            reason = _first(error)
        else:
            # Where the topic is stamped by its writers, a writer's wrong clock cannot be told by the stamp.
            clock = record.timestamp if record.timestamp_type == _LOG_APPEND_TIME else now
            if click.event_time > clock + clock_skew_ms:
                reason = f"event_time: {click.event_time - clock} ms ahead of the broker's clock"
            elif record.key != click.query_id.encode():
                reason = "key: the record is not keyed by its query_id"
        if reason:
            rejects.append(
                Rejected(reason, record.topic, record.partition, record.offset, record.key, record.value or b"")
            )
            continue
        clicks.append(click)
        places.append((record.partition, record.offset))
    where = np.array(places, np.int64).reshape(-1, 2)
    return Clicks(
        [click.event_id for click in clicks],
        [click.query_id for click in clicks],
        [click.item_id for click in clicks],
        np.array([click.event_time for click in clicks], np.int64),
        where[:, 0],
        where[:, 1],
    ), rejects


def _first(error: ValidationError) -> str:
    first = error.errors(include_input=False, include_url=False)[0]
    if first["type"] == "json_invalid":
        return f"not JSON: {first['msg']}"
    return f"{'.'.join(str(part) for part in first['loc']) or 'click'}: {first['msg']}"


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

    def send(self, click: Click) -> Any:
        """Queue a click; the future resolves to its place in the topic (``.partition``, ``.offset``)."""
        value = click.model_dump_json(exclude_none=True).encode()
        return self._producer.send(CLICKS, key=click.query_id.encode(), value=value)

    def write(self, click: Click, timeout_s: float = 10) -> Any:
        """Send a click and wait for its acknowledgement.

        Raises:
            kafka.errors.KafkaError: the cluster did not take it.
        """
        producer = self._producer
        try:
            return self.send(click).get(timeout_s)
        except KafkaError:
            # After one record that was refused, an idempotent producer refuses every later one.
            if producer is self._producer:
                self._producer = self._open()
                close_quietly(producer)
            raise

    def flush(self) -> None:
        self._producer.flush()

    def close(self) -> None:
        self._producer.close(timeout=10)
