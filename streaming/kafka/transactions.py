"""Exactly once: a batch's outputs and its input offsets become visible together, or not at all."""

import logging
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from kafka import KafkaProducer, TopicPartition
from kafka.structs import OffsetAndMetadata

from model.settings.updater import UpdaterConfig
from model.tracing import headers
from streaming.kafka.clients import close_quietly, transactional_producer
from streaming.kafka.hanging_transactions import abort_hanging

log = logging.getLogger(__name__)


class Message(NamedTuple):
    """A record to send."""

    topic: str
    partition: int
    value: bytes
    key: bytes | None = None
    headers: list[tuple[str, bytes]] = []


class TransactionError(RuntimeError):
    """A transaction failed, and whether it was committed is not known: ask Kafka for the committed offsets."""


class Transactions:
    """Runs one transaction after the other under one transactional id.

    Args:
        transactional_id: Unique to this worker, and the same after its restart: taking it fences whoever held it and
            ends the transaction which that one had open.
    """

    def __init__(self, config: UpdaterConfig, transactional_id: str):
        self._config = config
        self._id = transactional_id
        self._producer: KafkaProducer | None = None

    def open(self) -> KafkaProducer:
        """Take the transactional id; call before reading any input.

        Raises:
            kafka.errors.KafkaError: the cluster did not answer; try again.
        """
        if self._producer is None:
            producer = transactional_producer(self._config, self._id)
            try:
                producer.init_transactions()
                abort_hanging(self._config, self._id)
            except BaseException:
                close_quietly(producer)
                raise
            self._producer = producer
        return self._producer

    def commit(self, messages: Iterable[Message], offsets: Mapping[TopicPartition, int], group: Any) -> None:
        """Send the messages and the offsets (next to read) of ``group`` in one transaction.

        Raises:
            TransactionError: it failed. The producer is closed: call :meth:`open` again.
        """
        try:
            producer = self.open()
            producer.begin_transaction()
            traced = headers()
            futures = [
                producer.send(m.topic, value=m.value, key=m.key, headers=[*m.headers, *traced], partition=m.partition)
                for m in messages
            ]
            # Every record's own outcome is looked at: after one that was refused, kafka-python's commit can report
            # success and lose the transaction's records.
            producer.flush(timeout=self._config.transaction_timeout_ms / 1000)
            for future in futures:
                future.get(timeout=self._config.transaction_timeout_ms / 1000)
            producer.send_offsets_to_transaction(
                {partition: OffsetAndMetadata(offset, "", -1) for partition, offset in offsets.items()}, group
            )
            producer.commit_transaction()
        except Exception as error:
            self._discard()
            raise TransactionError(f"{type(error).__name__}: {error}") from error
        if producer.sent_again:
            # A first sending may still be on its way, and would be taken for a part of the next transaction: the end of
            # this one would end that one half-way. Under a new epoch Kafka refuses it.
            log.info("epoch_renewed id=%s", self._id)
            self._discard()

    def _discard(self) -> None:
        """Close: a producer that has failed once is not to be trusted again, not even to abort.

        Its transaction ends when the id is taken again.
        """
        producer, self._producer = self._producer, None
        if producer is not None:
            close_quietly(producer)

    def close(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            close_quietly(producer, timeout=5)
