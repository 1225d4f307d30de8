"""How long the oldest click has waited that does not show in the answers yet, by Kafka's own word.

A click goes through four topics before all of it shows: the query stage reads ``clicks``, the item stage what that says
of items, the sink what both say for the online store, and this process the item vectors. For each the age of the first
record that its reader has not finished is looked at twice a second.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from kafka import KafkaConsumer, TopicPartition
from kafka.admin import KafkaAdminClient
from kafka.errors import KafkaError

from model.settings.updater import KafkaConnection
from serving.background import Background
from serving.metrics import STALENESS
from streaming.kafka.clients import close_quietly, free_consumer
from streaming.kafka.offsets import Offsets, group_name, sink_group

_EVERY_S = 0.5
_MEMBERS_S = 2.0  # how often it is looked who works


@dataclass(frozen=True)
class Serving:
    """What is looked at: the bundle in service, where its clicks begin, and how far this process has read."""

    version: str
    starts: Mapping[int, int]
    positions: Mapping[int, int]


class Freshness(Background):
    """Looks at the groups of the bundle in service.

    Args:
        serving: As of now.
    """

    def __init__(self, kafka: KafkaConnection, serving: Callable[[], Serving]):
        super().__init__("freshness")
        self._kafka, self._serving = kafka, serving
        self.waiting_ms: dict[str, int] = {}
        """Topic → age of the oldest record in it that waits for its reader; 0: none has waited for half a second."""
        self.members: dict[str, int] = {}
        """Stage → processes that work on it. Kafka notices after ten seconds that one was killed."""
        self._before: Offsets = {}
        self._looked = time.monotonic()

    @property
    def staleness_ms(self) -> int:
        """How long the oldest click has waited at most; it grows while Kafka does not answer."""
        since = (time.monotonic() - self._looked) * 1000
        return max(self.waiting_ms.values(), default=0) + int(since if since > 2_000 * _EVERY_S else 0)

    def expected(self, error: Exception) -> bool:
        return isinstance(error, KafkaError | TimeoutError)

    def run(self) -> None:
        consumer = free_consumer(self._kafka, max_partition_fetch_bytes=1 << 16, request_timeout_ms=5_000)
        admin = KafkaAdminClient(**self._kafka.client, request_timeout_ms=5_000)
        counted = 0.0
        try:
            while not self._stop.is_set():
                self._look(consumer, admin)
                if time.monotonic() - counted > _MEMBERS_S:
                    self.members, counted = self._count(admin), time.monotonic()
                self.worked()
                STALENESS.set(self.staleness_ms / 1000)
                self._stop.wait(_EVERY_S)
        finally:
            close_quietly(consumer)
            admin.close()

    def _groups(self, version: str) -> dict[str, str]:
        return {
            "query": group_name(self._kafka, "query", version),
            "item": group_name(self._kafka, "item", version),
            "online store": sink_group(self._kafka),
        }

    def _look(self, consumer: KafkaConsumer, admin: KafkaAdminClient) -> None:
        topics, serving = self._kafka.topics, self._serving()
        names = (topics.clicks, topics.item_signals, topics.query_vectors, topics.item_vectors)
        partitions = [TopicPartition(name, p) for name in names for p in consumer.partitions_for_topic(name) or ()]
        ends: Offsets = consumer.end_offsets(partitions) if partitions else {}
        done = {
            stage: {p: at.offset for p, at in admin.list_group_offsets({group: None}).get(group, {}).items()}
            for stage, group in self._groups(serving.version).items()
        }
        starts = {TopicPartition(topics.clicks, p): offset for p, offset in serving.starts.items()}
        readers = {
            topics.clicks: starts | done["query"],
            topics.item_signals: done["item"],
            topics.query_vectors: done["online store"],
            topics.item_vectors: {TopicPartition(topics.item_vectors, p): at for p, at in serving.positions.items()},
        }
        # What was there at the last look and has not been read since has waited for as long as its record is old.
        behind = {
            p: at for p, end in self._before.items() if (at := max(0, readers[p.topic].get(p, 0))) < end and p in ends
        }
        ages = self._ages(consumer, behind, ends)
        self.waiting_ms = {name: max((age for p, age in ages.items() if p.topic == name), default=0) for name in names}
        self._before, self._looked = ends, time.monotonic()

    def _ages(self, consumer: KafkaConsumer, behind: Offsets, ends: Offsets) -> dict[TopicPartition, int]:
        """How old the first committed record is from some offsets on; partitions without one are left out."""
        ages: dict[TopicPartition, int] = {}
        consumer.assign(list(behind))
        for partition, offset in behind.items():
            consumer.seek(partition, offset)
        deadline = time.monotonic() + _EVERY_S
        while behind.keys() - ages.keys() and time.monotonic() < deadline:
            polled = consumer.poll(timeout_ms=100)
            now = time.time() * 1000
            for partition, records in polled.items():
                ages.setdefault(partition, max(0, int(now - records[0].timestamp)))
            if all(p in ages or (consumer.position(p) or 0) >= ends[p] for p in behind):
                break
        return ages

    def _count(self, admin: KafkaAdminClient) -> dict[str, int]:
        groups = self._groups(self._serving().version)
        try:
            described = admin.describe_groups(list(groups.values()))
        except KafkaError:  # no right to: then it is not said
            return {}
        return {stage: len(described.get(group, {}).get("members", ())) for stage, group in groups.items()}
