"""Forgetting a query: saying so in Kafka, and reading what was said.

It is said three times, in this order: to the list, that the query is to be forgotten; to ``clicks``, where it is the
moment; to the list again, where that moment stands. Whoever reads the list after the end of ``clicks`` thus knows of
every moment below that end, and a crash in between leaves a query that is hidden and only has to be forgotten again.
"""

import dataclasses
import logging
import time
from collections.abc import Iterable, Mapping
from typing import Any

from kafka import KafkaConsumer, KafkaProducer
from pydantic import ValidationError

from model.bundle import Bundle
from model.click import Forget
from model.forgetting import Forgotten, Listed, take
from model.partitioner import partitions_of as homes_of
from model.settings.updater import KafkaConnection
from model.topic_record import UNKNOWN
from streaming.kafka.clients import RETRY, close_quietly, free_consumer, partitions_of
from streaming.kafka.records import UnknownFormat

log = logging.getLogger(__name__)
_ACKNOWLEDGED_S = 10.0
_MISSING_S = 2.0


class ForgetWriter:
    """Writes to both topics; each call returns once all replicas have it. For one thread at a time."""

    def __init__(self, kafka: KafkaConnection):
        self._kafka = kafka
        self._producer: KafkaProducer | None = None

    def hide(self, ids: Iterable[str], before: int) -> list[Any]:
        """Say that some queries are about to be forgotten as of a moment (ms): nobody shows what is known of them from
        here on. Whatever else knows of them can be deleted now, since their new clicks come after :meth:`forget`.

        Returns:
            Where the list has it (``.partition``, ``.offset``).

        Raises:
            kafka.errors.KafkaError: the cluster did not take all of it; to write it again does no harm.
        """
        said = Forgotten(before=before).as_json(exclude_none=True)
        return self._say(self._kafka.topics.forgotten, dict.fromkeys(ids, said))

    def forget(self, ids: Iterable[str], before: int) -> tuple[Listed, list[Any]]:
        """Forget some queries that are hidden.

        Returns:
            What the list says of them now, and where it has it.

        Raises:
            kafka.errors.KafkaError: as :meth:`hide`.
        """
        moments = {id_: Forget(query_id=id_, forget_before=before).model_dump_json().encode() for id_ in ids}
        places = self._say(self._kafka.topics.clicks, moments)
        listed = {
            id_: Forgotten(before=before, partition=place.partition, offset=place.offset)
            for id_, place in zip(moments, places, strict=True)
        }
        return listed, self._say(self._kafka.topics.forgotten, {id_: one.as_json() for id_, one in listed.items()})

    def _say(self, topic: str, records: Mapping[str, bytes]) -> list[Any]:
        producer = self._producer = self._producer or KafkaProducer(
            **self._kafka.client, **RETRY, acks="all", max_block_ms=int(1000 * _ACKNOWLEDGED_S), metrics_enabled=False,
            allow_auto_create_topics=False,
        )  # fmt: skip
        where: list[int | None] = [None] * len(records)  # the client's own choice is murmur2's
        if topic == self._kafka.topics.clicks and self._kafka.partitioner != "murmur2":
            count = len(producer.partitions_for(topic))
            where = homes_of(list(records), count, self._kafka.partitioner).tolist()
        sent = [
            producer.send(topic, key=id_.encode(), value=said, partition=partition)
            for (id_, said), partition in zip(records.items(), where, strict=True)
        ]
        deadline = time.monotonic() + _ACKNOWLEDGED_S
        return [future.get(max(0.1, deadline - time.monotonic())) for future in sent]

    def close(self) -> None:
        if self._producer is not None:
            close_quietly(self._producer, 2)


def parse(record: Any) -> Listed:
    """What a record of the list says.

    Raises:
        ValueError: it is none. UnknownFormat: another release wrote it: passed over, somebody would be remembered.
    """
    if not record.value:
        return {}
    try:
        return {record.key.decode(): Forgotten.model_validate_json(record.value)}
    except ValidationError as error:
        first = error.errors()[0]
        if first["type"] == UNKNOWN:
            raise UnknownFormat(f"{record.topic}-{record.partition} at {record.offset}: {first['msg']}") from None
        raise


class ForgottenReader:
    """Reads the list to its end, then whatever comes. Where the topic does not exist, nothing was forgotten."""

    def __init__(self, connection: KafkaConnection):
        self.known: Listed = {}
        self._consumer: KafkaConsumer = free_consumer(connection)
        try:
            partitions = partitions_of(self._consumer, connection.topics.forgotten, _MISSING_S)
        except TimeoutError:
            log.warning("no_list_of_forgotten topic=%s: create it to forget queries", connection.topics.forgotten)
            partitions = []
        self._consumer.assign(partitions)
        self._consumer.seek_to_beginning()
        goal = self._consumer.end_offsets(partitions) if partitions else {}
        while any((self._consumer.position(p) or 0) < end for p, end in goal.items()):
            self.poll(100)

    def poll(self, timeout_ms: int = 0) -> None:
        """Take over what was said since."""
        if not self._consumer.assignment():
            return
        for records in self._consumer.poll(timeout_ms=timeout_ms).values():
            for record in records:
                try:
                    take(self.known, parse(record))
                except ValueError as error:
                    log.error("record_set_aside topic=%s offset=%d error=%r", record.topic, record.offset, error)

    def close(self) -> None:
        close_quietly(self._consumer)


def read_forgotten(connection: KafkaConnection) -> Listed:
    """The list as it is now.

    Raises:
        kafka.errors.KafkaError: the cluster did not answer.
    """
    reader = ForgottenReader(connection)
    reader.close()
    return reader.known


def without(bundle: Bundle, forgotten: Listed) -> Bundle:
    """The bundle without those whose moment lies in the stream since its cut, or it would come back where the stream's
    record of it is gone."""
    known = [id_ for id_, one in forgotten.items() if one.in_state(bundle.manifest.offsets)]
    known = [id_ for id_, row in zip(known, bundle.queries.rows(known).tolist(), strict=True) if row >= 0]
    if not known:
        return bundle
    log.info("forgotten bundle=%s queries=%d", bundle.version, len(known))
    return dataclasses.replace(bundle, queries=bundle.queries.without(known))
