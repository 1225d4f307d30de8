"""Exactly once: a batch's outputs and its input offsets become visible together, or not at all."""

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, Protocol

from kafka import TopicPartition

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


class Producer(Protocol):
    """A client's transactional producer."""

    @property
    def sent_again(self) -> bool:
        """Whether a request of a transaction may have been sent again because its first sending was not answered."""

    def init_transactions(self) -> None: ...

    def begin_transaction(self) -> None: ...

    def send_all(self, messages: Iterable[Message]) -> None:
        """Send the transaction's records; if one is refused, this fails or the commit does."""

    def send_offsets_to_transaction(self, offsets: Mapping[TopicPartition, int], group: Any) -> None: ...

    def commit_transaction(self) -> None: ...


class Transactions:
    """Runs one transaction after the other under one transactional id.

    Args:
        transactional_id: Unique to this worker, and the same after its restart: taking it fences whoever held it and
            ends the transaction which that one had open.
        make: Makes a client's producer for an id.
    """

    def __init__(
        self,
        config: UpdaterConfig,
        transactional_id: str,
        make: Callable[[UpdaterConfig, str], Producer] = transactional_producer,
    ):
        self._config, self._id, self._make = config, transactional_id, make
        self._producer: Producer | None = None

    def open(self) -> Producer:
        """Take the transactional id; call before reading any input.

        Raises:
            kafka.errors.KafkaError: the cluster did not answer; try again.
        """
        if self._producer is None:
            producer = self._make(self._config, self._id)
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
            producer.send_all([m._replace(headers=[*m.headers, *traced]) for m in messages] if traced else messages)
            producer.send_offsets_to_transaction(offsets, group)
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
