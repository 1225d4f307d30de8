"""Clients of kafka-python with the settings that exactly-once and low latency need, and the topics themselves."""

import contextlib
import logging
import time
from collections.abc import Iterable
from typing import Any

from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.errors import KafkaError, KafkaTimeoutError
from kafka.producer.transaction_manager import FindCoordinatorHandler, TransactionManager

from model.settings.updater import KafkaConnection, UpdaterConfig

# The default pause between attempts, 100 ms, makes one commit in twenty take 110–250 ms.
RETRY = {"retry_backoff_ms": 20, "reconnect_backoff_ms": 50, "reconnect_backoff_max_ms": 1_000}


_JOIN_MS = 3_000


class GroupConsumer(KafkaConsumer):
    """A member of a group that may be polled with short timeouts.

    In kafka-python 3.0.12 a join that outlasts a poll is lost: it ends in the background, its assignment is dropped,
    and the next poll either joins anew, for ever, or takes itself for a member and never reads anything. So whenever
    there is joining to be done it is given time, before the poll.
    """

    def poll(self, timeout_ms: float = 0, **options: Any) -> dict[TopicPartition, list]:
        if self._coordinator.rejoining or self._coordinator.need_rejoin():
            self._coordinator.request_rejoin()
            self._coordinator.poll(timeout_ms=_JOIN_MS)
        return super().poll(timeout_ms=timeout_ms, **options)


class _Watched(TransactionManager):
    """A transaction manager that notices requests whose connection ended before the answer came."""

    sent_again = False

    def _enqueue_request(self, request_handler: Any) -> None:
        answered = request_handler.on_complete

        def on_complete(correlation_id: int, answer: Any) -> None:
            if isinstance(answer, Exception) and not isinstance(request_handler, FindCoordinatorHandler):
                self.sent_again = True
            answered(correlation_id, answer)

        if "on_complete" not in vars(request_handler):  # not yet, and not when it is enqueued again
            request_handler.on_complete = on_complete
        super()._enqueue_request(request_handler)


class TransactionalProducer(KafkaProducer):
    """A producer whose transactions end in time, one way or the other.

    kafka-python 3.0.12 waits for them without a limit, and after a record that expired (a broker that was away for
    long) it waits for ever.
    """

    def __init__(self, **configs: Any):
        super().__init__(**configs)
        self._transaction_manager.__class__ = _Watched

    @property
    def sent_again(self) -> bool:
        """Whether a request of a transaction was sent again because its first sending was not answered."""
        return self._transaction_manager.sent_again

    def send_offsets_to_transaction(self, offsets: dict, group_metadata: Any) -> None:
        self._wait(self._transaction_manager.send_offsets_to_transaction(offsets, group_metadata))

    def commit_transaction(self) -> None:
        self._wait(self._transaction_manager.begin_commit())

    def _wait(self, result: Any) -> None:
        self._sender.wakeup()
        limit = self.config["transaction_timeout_ms"]
        if not result.wait(timeout_ms=limit):
            raise KafkaTimeoutError(f"the transaction did not end within {limit} ms")


def quiet_kafka() -> None:
    """Keep kafka-python's log to what nobody else reports.

    While a broker is away it logs hundreds of lines a second, errors included; the workers say so themselves, once.
    """
    logging.getLogger("kafka").setLevel(logging.CRITICAL)


def group_consumer(config: UpdaterConfig, group: str, topics: Iterable[str], name: str, **extra: Any) -> GroupConsumer:
    """A static member of a group that reads committed records and commits nothing by itself.

    Raises:
        TimeoutError: a topic does not exist.
    """
    listener = extra.pop("listener", None)
    consumer = GroupConsumer(
        **config.client,
        **RETRY,
        client_id=name,
        group_id=group,
        group_instance_id=name,
        isolation_level="read_committed",
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        partition_assignment_strategy=(CooperativeStickyAssignor,),
        session_timeout_ms=config.session_timeout_ms,
        heartbeat_interval_ms=config.session_timeout_ms // 5,
        metrics_enabled=False,
        allow_auto_create_topics=False,
        **{"fetch_max_wait_ms": config.fetch_max_wait_ms, **extra},
    )
    topics = list(topics)
    try:
        for topic in topics:
            # Without the topics' metadata a leader assigns nothing, and the group joins a second time.
            partitions_of(consumer, topic)
        consumer.subscribe(topics, listener=listener)
    except BaseException:
        close_quietly(consumer)
        raise
    return consumer


def free_consumer(connection: KafkaConnection, *, committed: bool = True, **extra: Any) -> KafkaConsumer:
    """A consumer without a group: it is told what to read."""
    return KafkaConsumer(
        **connection.client,
        **RETRY,
        group_id=None,
        isolation_level="read_committed" if committed else "read_uncommitted",
        enable_auto_commit=False,
        metrics_enabled=False,
        allow_auto_create_topics=False,
        **{"auto_offset_reset": "earliest", "fetch_max_wait_ms": 100, "max_poll_records": 1_000, **extra},
    )


def transactional_producer(config: UpdaterConfig, transactional_id: str) -> TransactionalProducer:
    return TransactionalProducer(
        **config.client,
        **RETRY,
        transactional_id=transactional_id,
        transaction_timeout_ms=config.transaction_timeout_ms,
        delivery_timeout_ms=config.transaction_timeout_ms,
        request_timeout_ms=config.transaction_timeout_ms,
        max_block_ms=config.transaction_timeout_ms,
        metrics_enabled=False,
        allow_auto_create_topics=False,
    )


def partitions_of(consumer: KafkaConsumer, topic: str, timeout_s: float = 30) -> list[TopicPartition]:
    """A topic's partitions, waiting for the topic to exist.

    Raises:
        TimeoutError: it does not.
    """
    deadline = time.monotonic() + timeout_s
    while not (found := consumer.partitions_for_topic(topic)):
        if time.monotonic() > deadline:
            raise TimeoutError(f"there is no topic {topic}; create the topics first")
        time.sleep(0.1)
    return [TopicPartition(topic, partition) for partition in sorted(found)]


def close_quietly(client: Any, timeout: float = 0) -> None:
    """Close a client of a broker that may be gone: what it still wanted to say no longer matters."""
    if not isinstance(client, KafkaProducer):
        with contextlib.suppress(KafkaError, OSError):
            client.close(timeout_ms=int(timeout * 1000))
        return
    try:
        client.close(timeout=timeout)
    except KafkaTimeoutError:
        # kafka-python 3.0.12 gives up closing if not all can be sent; its thread would go on for ever.
        client._sender.force_close()
        client._closed = True
    except (KafkaError, OSError):
        pass
