"""The loop without Kafka, for a look at it where there is no Java: a list in this process stands for the topics.

The stages are the updater's own. What is missing is what Kafka is for: nothing here outlives the process.
"""

import asyncio
import queue
import threading
import time
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from model.bundle import Bundle
from model.click import Click, ClickValidator
from model.settings.serving import ServingConfig
from model.settings.updater import UpdaterConfig
from serving.background import Background
from serving.bundle_watcher import Running
from serving.service import Service
from serving.token import Token
from streaming.kafka.records import unpack
from streaming.sink.online_writer import OnlineWriter
from streaming.sink.rows import with_stamps
from streaming.stages.stage import ItemStage, QueryStage

if TYPE_CHECKING:
    from feast import FeatureStore


class Record(NamedTuple):
    """A record as a consumer gets it."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: Any
    headers: list[tuple[str, bytes]]


class SmallLoop:
    """Folds each click when it comes, in a thread: both stages, the index, the online store."""

    def __init__(self, bundle: Bundle, store: "FeatureStore", config: UpdaterConfig, service: "PlayService"):
        self._service, self._topics = service, config.topics
        self._query = QueryStage(bundle, store, config, 1, {})
        self._query._validate = ClickValidator(1, config.clock_skew_ms, config.partitioner)  # as open() would, of Kafka
        self._query.source_id, self._query._dismissed = "play", 1
        self._item = ItemStage(bundle, store, config, 1, {})
        self._item.source_id = "play"
        self._writer = OnlineWriter(store, bundle.version)
        self._offsets: dict[str, int] = {}
        self._queue: queue.Queue[tuple[Click, Future[Token]] | None] = queue.Queue()
        self._thread = threading.Thread(target=self._run, name="small-loop", daemon=True)
        self.posted = 0

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join(5)

    async def post(self, click: Click) -> Token:
        """In the place of :meth:`serving.click_producer.ClickProducer.post`."""
        written: Future[Token] = Future()
        self._queue.put((click, written))
        return await asyncio.wrap_future(written)

    def _run(self) -> None:
        while (entry := self._queue.get()) is not None:
            click, written = entry
            value = click.model_dump_json(exclude_none=True).encode()
            record = self._append(self._topics.clicks, value, click.query_id.encode(), [])
            written.set_result(Token(0, record.offset))
            self.posted += 1
            self._fold(record)

    def _append(self, topic: str, value: Any, key: bytes | None, headers: Any) -> Record:
        offset = self._offsets.get(topic, 0)
        self._offsets[topic] = offset + 1
        return Record(topic, 0, offset, time.time_ns() // 1_000_000, key, value, list(headers))

    def _fold(self, click: Record) -> None:
        """A click's way through both stages, as far as the answers."""
        topics, stamp = self._topics, time.time_ns() // 1_000
        result = self._query.process([click])
        self._query.apply(result)
        signals = [m for m in result.messages if m.topic == topics.item_signals]
        messages = list(result.messages)
        if signals:
            after = self._item.process([self._append(m.topic, m.value, m.key, m.headers) for m in signals])
            self._item.apply(after)
            messages = [*after.messages, *messages]
        for message in messages:
            if message.topic == topics.dismissed:
                self._service.dismissed.apply(self._append(message.topic, message.value, message.key, []))
            if message.topic not in (topics.item_vectors, topics.query_vectors):
                continue
            rows = unpack(message.value).rows
            if not len(rows):
                continue
            side = "item" if message.topic == topics.item_vectors else "query"
            if side == "item":
                if self._query.items.moving:
                    self._query.items.update(rows)
                self._service.consumer.corpus.apply(rows)
            self._writer.write(side, with_stamps(rows, np.full(len(rows), stamp)), np.full(len(rows), stamp))
        self._writer.write_progress(0, click.offset + 1, stamp)


class PlayService(Service):
    """The service whose clicks go through the small loop, and that looks for no broker."""

    def __init__(self, bundle: Bundle, store: "FeatureStore", home: Path, config: ServingConfig):
        nowhere = UpdaterConfig(bootstrap="127.0.0.1:1")
        super().__init__(bundle, store, nowhere, home, config)
        self.clicks.close()
        self._loop = SmallLoop(bundle, store, nowhere, self)
        self.clicks = self._loop  # type: ignore[assignment]
        members = {"query": 1, "item": 1}
        self.freshness = SimpleNamespace(staleness_ms=0, waiting_ms={}, members=members, error=None)  # type: ignore[assignment]

    def _load(self, bundle: Bundle) -> Running:
        running = super()._load(bundle)
        running.consumer._caught_up.set()  # nothing is there to be read
        running.consumer.lag = 0
        return running

    async def start(self) -> None:
        await super().start()
        self._loop.start()

    @property
    def _threads(self) -> list[Background]:
        return []
