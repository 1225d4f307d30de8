"""A thread that reads a topic from its beginning, and begins again where Kafka fails."""

import logging
import threading
import time
from collections import deque
from typing import Any

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

from model.settings.updater import KafkaConnection
from serving.background import Background
from serving.metrics import SET_ASIDE
from streaming.kafka.clients import close_quietly, free_consumer

log = logging.getLogger(__name__)
_LOOK_S = 1.0  # how often ends and partitions are looked at


class TopicReader(Background):
    """Reads all partitions of a topic, and gives each record to :meth:`apply`.

    It belongs to no group: every reader reads everything. It reads committed records only, so what it applies is never
    taken back. What is read must be absolute values: after a failure all of it is read again, to no effect. A record
    that cannot be applied is set aside: it is counted and logged, and the next one is read.
    """

    def __init__(self, kafka: KafkaConnection, topic: str):
        super().__init__(topic)
        self._kafka, self._topic = kafka, topic
        self.lag: int | None = None
        """Records behind, as of the last look; None before the first."""
        self.set_aside = 0
        self.set_aside_last: deque[dict[str, str | int]] = deque(maxlen=10)
        self.partitions = 0
        """Of the topic, as of the last look; 0: there is no such topic."""
        self._caught_up = threading.Event()
        self.positions: dict[int, int] = {}
        """Partition → the offset that comes next."""

    def apply(self, record: Any) -> None:
        """Take over one record.

        Raises:
            Exception: it cannot be; the reader goes on with the next.
        """
        raise NotImplementedError

    def idle(self) -> None:
        """Called after each poll."""

    @property
    def caught_up(self) -> bool:
        """Whether everything that was on the topic when it was first looked at has been read."""
        return self._caught_up.is_set()

    def wait_caught_up(self, timeout_s: float) -> bool:
        return self._caught_up.wait(timeout_s)

    def has_read(self, partition: int, offset: int) -> bool:
        """Whether a record has been applied, or set aside."""
        return self.positions.get(partition, 0) > offset

    def expected(self, error: Exception) -> bool:
        return isinstance(error, KafkaError | TimeoutError)

    def run(self) -> None:
        consumer = free_consumer(self._kafka)
        try:
            self._follow(consumer)
        finally:
            close_quietly(consumer)

    def _follow(self, consumer: KafkaConsumer) -> None:
        goal: dict[TopicPartition, int] = {}
        looked = 0.0
        while not self._stop.is_set():
            if time.monotonic() - looked > _LOOK_S or not self.caught_up:
                ends = self._look(consumer)
                goal = goal or ends
                if all(consumer.position(partition) >= end for partition, end in goal.items()):
                    self._caught_up.set()
                self.worked()
                looked = time.monotonic()
            if not consumer.assignment():
                self._stop.wait(0.2)  # the topic is made by whoever writes it first
                continue
            for partition, records in consumer.poll(timeout_ms=200).items():
                for record in records:
                    self._take(record)
                    self.positions[partition.partition] = record.offset + 1
            self.idle()

    def _look(self, consumer: KafkaConsumer) -> dict[TopicPartition, int]:
        """Where the partitions end; those that are new are read from their beginning."""
        partitions = [TopicPartition(self._topic, p) for p in consumer.partitions_for_topic(self._topic) or ()]
        self.partitions = len(partitions)
        if set(partitions) != consumer.assignment():
            kept = {p: consumer.position(p) for p in consumer.assignment()}
            consumer.assign(partitions)
            consumer.seek_to_beginning(*[p for p in partitions if p not in kept])
            for partition, offset in kept.items():
                consumer.seek(partition, offset)
        ends: dict[TopicPartition, int] = consumer.end_offsets(partitions) if partitions else {}
        self.lag = sum(max(0, ends[p] - (consumer.position(p) or 0)) for p in partitions)
        return ends

    def _take(self, record: Any) -> None:
        try:
            self.apply(record)
        except Exception as error:  # one record must not end the reading of all others
            self.set_aside += 1
            SET_ASIDE.labels(self._topic).inc()
            reason = f"{type(error).__name__}: {error}"
            self.set_aside_last.append({"partition": record.partition, "offset": record.offset, "reason": reason})
            log.error("record_set_aside topic=%s partition=%d offset=%d reason=%s", self._topic, record.partition,
                      record.offset, reason)  # fmt: skip
