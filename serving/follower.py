"""The follower: brings the corpus up to what the stream has computed, and keeps it there."""

import time
from typing import Any

import pyarrow as pa
from kafka import KafkaConsumer, TopicPartition

from serving.corpus import Corpus
from serving.metrics import INDEX_LAG, SEARCHABLE
from serving.reading import Reading
from streaming.changelog import ARRIVED
from streaming.clients import close_quietly, free_consumer
from streaming.config import KafkaConnection
from streaming.topics import ITEM_VECTORS, unpack

_LAG_EVERY_S = 1.0


class Follower(Reading):
    """Reads ``item-vectors`` and applies the rows of the corpus's bundle.

    It belongs to no group: every service reads everything. It reads committed records only, so what it applies is never
    taken back.
    """

    def __init__(self, corpus: Corpus, kafka: KafkaConnection):
        self.corpus = corpus
        self.applied = 0  # rows of this bundle
        self.foreign = 0  # rows of other bundles, dropped: their vectors lie in another space
        self.unreadable = 0  # records that are not Arrow batches, skipped
        self.lag: int | None = None  # records behind, as of the last look; None before the first
        self.delay_ms: float | None = None  # from commit to findable, of the last record
        self.newcomers: list[str] = []  # items that came after the bundle, whose categories nobody has filed yet
        self._kafka = kafka
        super().__init__("item vectors")

    def read(self) -> None:
        consumer = free_consumer(self._kafka)
        try:
            self._follow(consumer)
        finally:
            close_quietly(consumer)

    def _follow(self, consumer: KafkaConsumer) -> None:
        goal: dict[TopicPartition, int] = {}
        looked = 0.0
        while not self._stop.is_set():
            if time.monotonic() - looked > _LAG_EVERY_S or not self.caught_up:
                partitions = [
                    TopicPartition(ITEM_VECTORS, p) for p in consumer.partitions_for_topic(ITEM_VECTORS) or ()
                ]
                if set(partitions) != consumer.assignment():
                    kept = {p: consumer.position(p) for p in consumer.assignment()}
                    consumer.assign(partitions)
                    consumer.seek_to_beginning(*[p for p in partitions if p not in kept])
                    for partition, offset in kept.items():
                        consumer.seek(partition, offset)
                ends = consumer.end_offsets(partitions) if partitions else {}
                goal = goal or ends
                at = {partition: consumer.position(partition) for partition in partitions}
                self.lag = sum(max(0, ends[p] - at[p]) for p in partitions)
                INDEX_LAG.set(self.lag)
                self.error = None
                if all(at.get(p, 0) >= end for p, end in goal.items()):
                    self._caught_up.set()
                looked = time.monotonic()
            if not consumer.assignment():
                self._stop.wait(0.2)  # the topic is made by whoever writes it first
                continue
            for records in consumer.poll(timeout_ms=200).values():
                for record in records:
                    self._apply(record)

    def _apply(self, record: Any) -> None:
        try:
            packed = unpack(record.value)
        except (pa.ArrowInvalid, StopIteration, TypeError):
            self.unreadable += 1
            return
        if packed.bundle != self.corpus.version:
            self.foreign += len(packed.rows)
            return
        self.newcomers += self.corpus.apply(packed.rows)
        self.applied += len(packed.rows)
        now_ms = time.time() * 1000
        self.delay_ms = max(0.0, now_ms - record.timestamp)
        arrived = int(dict(record.headers).get(ARRIVED, 0))
        if arrived and self.caught_up:
            SEARCHABLE.observe(max(0.0, now_ms - arrived) / 1000)
