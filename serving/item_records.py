"""What operators say of items: their features, and whether answers may hold them.

It stands in a compacted topic that every process reads from its beginning, so that it holds in all of them at once, and
over nights, rebuilds of the index, other bundles and restarts.
"""

import heapq
import threading
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any

from kafka import KafkaProducer

from model.settings.updater import KafkaConnection
from model.topic_record import TopicRecord
from serving.clock import wall_ms
from serving.corpus import Corpus, Held
from serving.token import Token
from serving.topic_reader import TopicReader
from streaming.kafka.clients import RETRY, close_quietly

_ACKNOWLEDGED_S = 10.0


class ItemRecord(TopicRecord):
    """All that operators have said of one item. A JSON object on Kafka, keyed by the item's id.

    features: all of the item's features; None: what the catalogue says · expires_at: ms since the epoch, from when on
    it is not shown.
    """

    features: dict[str, Any] | None = None
    available: bool = True
    hidden: bool = False
    deleted: bool = False
    expires_at: int | None = None

    def held(self, now_ms: int) -> Held:
        """Why the item is not shown at a moment."""
        held = Held(0) if self.available else Held.UNAVAILABLE
        held |= Held.HIDDEN if self.hidden else Held(0)
        held |= Held.DELETED if self.deleted else Held(0)
        expired = self.expires_at is not None and self.expires_at <= now_ms
        return held | Held.EXPIRED if expired else held


class ItemRecords(TopicReader):
    """Reads the topic and holds every corpus to it.

    Args:
        corpora: Those that are in use. title_of: What people call an item of some features.
    """

    def __init__(
        self,
        kafka: KafkaConnection,
        corpora: Callable[[], Collection[Corpus]],
        title_of: Callable[[Mapping[str, Any]], str | None],
    ):
        super().__init__(kafka, kafka.topics.items)
        self._corpora, self._title_of = corpora, title_of
        self._records: dict[str, ItemRecord] = {}
        self._expiries: list[tuple[int, str]] = []
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._records)

    def get(self, id_: str) -> ItemRecord:
        """What was last said of an item; of most, nothing."""
        return self._records.get(id_, ItemRecord())

    def apply(self, record: Any) -> None:
        id_, said = record.key.decode(), ItemRecord.model_validate_json(record.value or b"{}")
        with self._lock:
            self._records[id_] = said
            if said.expires_at is not None:
                heapq.heappush(self._expiries, (said.expires_at, id_))
            for corpus in self._corpora():
                self._put({id_: said}, corpus)

    def idle(self) -> None:
        """Take out what has expired."""
        now = wall_ms()
        with self._lock:
            while self._expiries and self._expiries[0][0] <= now:
                _, id_ = heapq.heappop(self._expiries)
                for corpus in self._corpora():
                    self._put({id_: self._records[id_]}, corpus)

    def put_on(self, corpus: Corpus) -> None:
        """Hold a corpus that has just been made to all that was said. It must be among ``corpora`` already."""
        with self._lock:
            self._put(self._records, corpus)

    def _put(self, records: Mapping[str, ItemRecord], corpus: Corpus) -> None:
        now = wall_ms()
        corpus.hold({id_: said.held(now) for id_, said in records.items()})
        described = {
            id_: (said.features, self._title_of(said.features))
            for id_, said in records.items()
            if said.features is not None and not said.deleted
        }
        if described:
            corpus.describe(described)


class ItemWriter:
    """Writes to the topic; it returns once all replicas have it. Thread-safe."""

    def __init__(self, kafka: KafkaConnection):
        self._kafka = kafka
        self._producer: KafkaProducer | None = None
        self._making = threading.Lock()

    def write(self, records: Mapping[str, ItemRecord]) -> list[Token]:
        """The records' places in the log.

        Raises:
            kafka.errors.KafkaError: the cluster did not take all of them; to write them again does no harm.
        """
        with self._making:
            producer = self._producer = self._producer or KafkaProducer(
                **self._kafka.client, **RETRY, acks="all", max_block_ms=int(1000 * _ACKNOWLEDGED_S),
                metrics_enabled=False, allow_auto_create_topics=False,
            )  # fmt: skip
        topic = self._kafka.topics.items
        sent = [
            producer.send(topic, key=id_.encode(), value=said.as_json(exclude_defaults=True))
            for id_, said in records.items()
        ]
        deadline = time.monotonic() + _ACKNOWLEDGED_S
        places = [future.get(max(0.1, deadline - time.monotonic())) for future in sent]
        return [Token(place.partition, place.offset) for place in places]

    def close(self) -> None:
        if self._producer is not None:
            close_quietly(self._producer, 2)
