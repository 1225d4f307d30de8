"""The service as a whole: what is running behind the API, and what it tells of itself."""

import asyncio
import itertools
import logging
import secrets
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from weakref import WeakSet

import numpy as np
from feast import FeatureStore
from kafka.errors import KafkaError

from model.bundle import Bundle
from model.bundle_follower import BundleFollower
from model.bundle_store import BundleStore
from model.click import Click
from model.forget_notes import leave_note
from model.ids import is_nobody
from model.settings.serving import ServingConfig
from model.settings.updater import KafkaConnection
from serving import metrics
from serving.ab.ab_test import Experiment, Popularity
from serving.ab.answer_ids import AnswerId
from serving.ab.impression_log import ImpressionLog
from serving.ab.query_vectors import QueryVectors
from serving.background import Background
from serving.batcher import RequestBatcher
from serving.bundle_watcher import BundleWatcher, Running
from serving.catalogue import Catalogue
from serving.click_producer import ClickProducer, NotWritten
from serving.clock import Clock
from serving.corpus import Corpus
from serving.dismissed_items import DismissedItems
from serving.features import Columns
from serving.forgotten_queries import ForgottenQueries
from serving.freshness import Freshness, Serving
from serving.item_records import ItemRecords, ItemWriter
from serving.item_vector_consumer import ItemVectorConsumer
from serving.log_ends import LogEnds
from serving.online_store import OnlineStore, StoreDown
from serving.query_state import QueryTable
from serving.retrieval import Answer, Answerer, Retriever
from serving.snapshot import Snapshot
from serving.token import Token
from streaming.contract import check_services
from streaming.dismissals import Dismissal
from streaming.forgetting import ForgetWriter

log = logging.getLogger(__name__)
_PATIENCE_S = 10.0  # for this process to read what it has written


@dataclass(frozen=True)
class Treatment:
    """An experiment's other way of answering, and what keeps its vectors up to the stream."""

    answerer: Answerer
    consumer: ItemVectorConsumer | None = None
    vectors: QueryVectors | None = None

    @property
    def threads(self) -> list[Background]:
        return [part for part in (self.consumer, self.vectors) if part is not None]


class Service:
    """Everything that answers from one bundle. :meth:`start` begins, on the event loop; :meth:`close` ends it.

    A broker or an online store that is away at the start is waited for meanwhile: answers are as of the cut.

    Args:
        bundle: The bundle to serve.
        store: The Feast store that answers online.
        kafka: How to reach the brokers.
        home: The home folder: its bundle store is watched for another bundle; a replay leaves its progress there.
        follower: What brings bundles into the home from an object store, if something has to.

    Raises:
        ContractError: the registered feature services are not those that the bundle was trained with.
        BundleError: the experiment's bundle cannot be read.
    """

    def __init__(
        self,
        bundle: Bundle,
        store: FeatureStore,
        kafka: KafkaConnection,
        home: Path,
        config: ServingConfig | None = None,
        follower: BundleFollower | None = None,
    ):
        self.config = config or ServingConfig()
        self.started = time.time()
        self.stopping = False
        self._home, self._kafka, self._feast, self._follower = home, kafka, store, follower
        self._corpora: WeakSet[Corpus] = WeakSet()
        self._tables: WeakSet[QueryTable] = WeakSet()
        self.store = OnlineStore(store, self.config.store_timeout_ms / 1000)
        self.catalogue = Catalogue(self.store, lambda: list(self._corpora))
        self.items = ItemRecords(kafka, lambda: list(self._corpora), self.catalogue.title_of)
        self.item_writer = ItemWriter(kafka)
        self.forgotten = ForgottenQueries(kafka, lambda: list(self._tables), self._folded)
        self.forget_writer = ForgetWriter(kafka)
        self._forgetting = asyncio.Lock()
        running = self._load(bundle)
        self.clock = Clock.choose(
            self.config.clock,
            lambda: self.snapshot.corpus.newest_event,
            bundle.manifest.cut_ms,
            self.config.replay_after_days,
        )
        self.dismissed = DismissedItems(
            kafka, self.config.dismissed_days, self.clock.now_ms, lambda: self.forgotten.known
        )
        self.retriever = Retriever(running.snapshot, self.clock, dismissed=self.dismissed)
        self.consumer = running.consumer
        self.impressions = ImpressionLog(kafka, self.config.impressions)
        self._treatment = self._treat()
        other = self._treatment.answerer if self._treatment else None
        self.experiment = Experiment(self.retriever, self.config.experiment, other, self._in_shadow)
        self.log_ends = LogEnds(kafka)
        self.batcher = RequestBatcher(self.experiment, self._known, self._counted, self.log_ends.have, self.config)
        self.clicks = ClickProducer(
            kafka, self.config.produce_timeout_s, self.config.max_pending, self.config.clicks_per_minute
        )
        self.freshness = Freshness(kafka, self._look_at)
        self._watcher = BundleWatcher(
            BundleStore(home / "bundles"),
            current=lambda: Running(self.snapshot, self.consumer),
            prepare=self._prepare,
            swap=self._swap,
            poll_s=self.config.watch_s,
            patience_s=self.config.swap_patience_s,
        )
        self._prefix, self._numbers = "", itertools.count()
        self._tell(running.snapshot)

    @property
    def _not_taken(self) -> str | None:
        return self._follower.error if self._follower else None

    @property
    def snapshot(self) -> Snapshot:
        return self.retriever.snapshot

    async def start(self) -> None:
        """To be called on the event loop that will answer, in the process that will."""
        self._prefix = secrets.token_hex(4)
        for thread in self._threads:
            thread.start()
        if self._follower is not None:
            self._follower.start()
            metrics.BUNDLES_OK.set_function(lambda: float(self._not_taken is None))
        await self.store.start()
        self.catalogue.start()

    async def close(self) -> None:
        """Answer what is there, then end everything, within some seconds even where the broker is away."""
        self.stopping = True
        if self._follower is not None:
            self._follower.close()
        await self.batcher.close()
        self.catalogue.close()
        await asyncio.gather(*(asyncio.to_thread(thread.close) for thread in self._threads))
        writers = (self.clicks, self.item_writer, self.forget_writer)
        await asyncio.gather(*(asyncio.to_thread(writer.close) for writer in writers))
        self.log_ends.close()
        await self.store.close()

    def answer_id(self, answer: Answer) -> str:
        """A name for an answer, from which a click or an impression can be joined to how it was answered."""
        return str(
            AnswerId(
                unique=f"{self._prefix}{next(self._numbers):x}", served=time.time_ns() // 1_000_000, at=answer.at,
                bundle=answer.snapshot.version, source=answer.source,
                experiment=self.config.experiment.name if self.config.experiment else None, arm=answer.arm,
                teams=answer.teams,
            )
        )  # fmt: skip

    def query_ids(self, limit: int, prefix: str) -> Sequence[str]:
        """Ids of the bundle's queries, those with the latest clicks first; with a prefix, in the bundle's order."""
        table, known = self.snapshot.bundle.queries, self.snapshot.queries
        ids: Iterable[str] = table.ids
        if not prefix:
            ids = (table.ids[row] for row in np.argsort(-table.last_click, kind="stable").tolist())
        there = (id_ for id_ in ids if id_.startswith(prefix) and known.row(id_) is not None and not is_nobody(id_))
        return list(itertools.islice(there, limit))

    async def history(self, query_id: str, n: int) -> list[str]:
        """The query's latest clicked items, newest first."""
        snapshot = self.snapshot
        try:
            columns = await self._known([query_id])
        except StoreDown:
            columns = None
        seen = self.retriever.states(snapshot, [query_id], columns).seen[0][::-1][:n]
        return [snapshot.corpus.ids[row] for row in seen.tolist()]

    async def post(self, event: Click) -> Token:
        """Write an event to the stream. A dismissal holds in this process when this returns, and in each other one
        before an answer of its that waits for the token.

        Raises:
            NotWritten, Overloaded, TooManyClicks: as :meth:`ClickProducer.post`.
        """
        token = await self.clicks.post(event)
        self.log_ends.note(self._kafka.topics.clicks, token)
        if self.snapshot.bundle.manifest.rule.weight(event.event_type, event.value) < 0:
            said = Dismissal(
                item_id=event.item_id, event_time=event.event_time, partition=token.partition, offset=token.offset
            )
            self.dismissed.note(event.query_id, said)
            if self.dismissed.partitions:
                token = replace(token, dismissed=await self.clicks.dismiss(event.query_id, said))
        return token

    async def forget(self, query_id: str) -> None:
        """Know nothing of a query any more that is of before now, here and in all that reads the topics.

        Raises:
            NotWritten: the broker did not take it. StoreDown: the online store did not. To do it again does no harm.
        """
        before = self.clock.now_ms()
        async with self._forgetting:
            try:
                await self._read_back(await asyncio.to_thread(self.forget_writer.hide, [query_id], before))
                await self.store.erase([query_id])
                _, places = await asyncio.to_thread(self.forget_writer.forget, [query_id], before)
                await asyncio.to_thread(self._note, query_id, before)
                await self._read_back(places)
            except (KafkaError, TimeoutError) as problem:
                raise NotWritten(
                    f"the broker did not acknowledge it ({type(problem).__name__}); send it again"
                ) from problem

    def _note(self, query_id: str, before: int) -> None:
        """For a night with --no-kafka, which does not hear of it otherwise."""
        try:
            leave_note(self._home, query_id, before)
        except OSError as error:
            log.warning("no note for nights with --no-kafka can be left in %s: %s", self._home, error)

    async def _read_back(self, places: Sequence[Any]) -> None:
        async with asyncio.timeout(_PATIENCE_S):
            while not all(self.forgotten.has_read(place.partition, place.offset) for place in places):
                await asyncio.sleep(0.005)

    def progress(self) -> bytes | None:
        """What a replay last wrote of its hit rates (JSON), or None."""
        try:
            return (self._home / "progress.json").read_bytes() or None
        except OSError:
            return None

    def not_alive(self) -> str | None:
        """Why the process should be replaced; None if it need not be."""
        return next((reason for thread in self._threads if (reason := thread.broken)), None)

    def not_ready(self) -> str | None:
        """Why the service should get no requests now; None if it can answer. A stale answer is better than none."""
        if self.stopping:
            return "the service is stopping"
        readers = [
            self.forgotten,
            self.dismissed,
            self.consumer,
            self.items,
            *(self._treatment.threads if self._treatment else ()),
        ]
        behind = [reader for reader in readers if not getattr(reader, "caught_up", True)]
        if behind and time.time() - self.started < self.config.swap_patience_s:
            reader = behind[0]
            return f"{reader.what} is being caught up with ({reader.error or getattr(reader, 'lag', None)} behind)"
        limit, stale = self.config.ready_staleness_s, self.freshness.staleness_ms
        if limit is not None and stale > 1000 * limit:
            return f"clicks have waited for {stale / 1000:.1f} s, longer than ready_staleness_s allows"
        return None

    def status(self) -> dict:
        consumer, corpus, bundle = self.consumer, self.snapshot.corpus, self.snapshot.bundle
        manifest, freshness = bundle.manifest, self.freshness
        return {
            "bundle": {
                "version": manifest.version,
                "dataset": manifest.dataset,
                "created": manifest.created.isoformat(),
                "cut": manifest.cut_ms,
                "queries": len(bundle.queries.ids),
                "excludes_seen": manifest.excludes_seen,
                "metrics": manifest.metrics,
                "preparing": self._watcher.preparing,
                "refused": self._watcher.refused,
                "not_taken": self._not_taken,
            },
            "index": {
                "kind": corpus.index.kind,
                "items": len(corpus),
                "dimension": corpus.index.dimension,
                "probes": corpus.index.probes,
                "updates": corpus.updates,
                "rebuilding": corpus.index.rebuilding,
                "held": corpus.held_count,
            },
            "stream": {
                "staleness_ms": freshness.staleness_ms,
                "waiting_ms": freshness.waiting_ms,
                "members": freshness.members,
                "caught_up": consumer.caught_up,
                "lag": consumer.lag,
                "delay_ms": consumer.delay_ms,
                "applied": consumer.applied,
                "foreign": consumer.foreign,
                "set_aside": consumer.set_aside,
                "set_aside_last": list(consumer.set_aside_last),
                "error": freshness.error or consumer.error,
                "newest_event": corpus.newest_event,
            },
            "store": {"down": self.store.down},
            "clock": {"now": self.clock.now_ms(), "replay": self.clock.replay},
            "load": {
                "pending": self.batcher.pending,
                "held": self.batcher.held,
                "answered": self.retriever.answered,
                "clicks_posted": self.clicks.posted,
            },
            "experiment": self.config.experiment
            and {
                **self.config.experiment.model_dump(),
                "answers": self.experiment.answers,
                "failures": self.experiment.failures,
            },
            "impressions": {"written": self.impressions.written, "dropped": self.impressions.dropped},
            "threads": {thread.what: thread.failures for thread in self._threads},
            "seconds": {step: round(spent, 3) for step, spent in self.retriever.seconds.items()},
            "uptime_s": round(time.time() - self.started, 1),
        }

    @property
    def _threads(self) -> list[Background]:
        treatment = self._treatment.threads if self._treatment else []
        readers = (self.consumer, self.items, self.forgotten, self.dismissed)
        return [*readers, self.impressions, self.freshness, self._watcher, *treatment]

    def _treat(self) -> Treatment | None:
        """What an experiment's treatment needs.

        Raises:
            BundleError: there is no such bundle. ContractError: it does not fit the registered services.
        """
        config = self.config.experiment
        if config is None:
            return None
        if config.bundle is None:
            return Treatment(self.retriever if config.ranking == "model" else Popularity(self.retriever))
        bundles = self._follower.bundles if self._follower else BundleStore(self._home / "bundles")
        running = self._load(bundles.load(config.bundle))
        vectors = QueryVectors(self._kafka, config.bundle)
        other = Retriever(running.snapshot, self.clock, vectors, self.dismissed)
        return Treatment(Popularity(other) if config.ranking == "popularity" else other, running.consumer, vectors)

    def _load(self, bundle: Bundle) -> Running:
        """Raises:
        ContractError: the registered feature services are not those that the bundle was trained with.
        """
        check_services(self._feast, bundle.manifest)
        snapshot = Snapshot.of(bundle, self.config)
        self._corpora.add(snapshot.corpus)
        self.items.put_on(snapshot.corpus)
        self._tables.add(snapshot.queries)
        self.forgotten.put_on(snapshot.queries)
        return Running(snapshot, ItemVectorConsumer(snapshot.corpus, self._kafka))

    def _prepare(self, bundle: Bundle) -> Running:
        running = self._load(bundle)
        running.consumer.start()
        return running

    def _swap(self, running: Running) -> None:
        metrics.SERVED.labels(self.snapshot.version).set(0)
        self.retriever.snapshot = running.snapshot  # from here on requests are answered by it
        self.consumer = running.consumer
        self._tell(running.snapshot)

    def _tell(self, snapshot: Snapshot) -> None:
        metrics.SERVED.labels(snapshot.version).set(1)
        metrics.CUT.set(snapshot.bundle.manifest.cut_ms / 1000)

    def _look_at(self) -> Serving:
        return Serving(self.snapshot.version, self.snapshot.bundle.manifest.offsets, self.consumer.positions)

    def _in_shadow(self, answer: Answer) -> None:
        answer_id = AnswerId.parse(self.answer_id(answer))
        self.impressions.note(answer_id.impression(answer.query_id, answer.items, shown=False))

    async def _known(self, ids: Sequence[str]) -> Columns:
        """What the online store knows of some queries and may still be said.

        Raises:
            StoreDown: the store did not answer.
        """
        return await self.forgotten.held_back(ids, self.store.queries)

    async def _counted(self, tokens: set[Token]) -> set[Token]:
        """Of some events, those that count in every answer of this process from here on.

        Raises:
            StoreDown: the store did not answer.
        """
        read = {
            token
            for token in tokens
            if (place := token.dismissed) is None or self.dismissed.has_read(place.partition, place.offset)
        }
        return await self._folded(read) if read else read

    async def _folded(self, tokens: set[Token]) -> set[Token]:
        """Of some clicks, those that count in the online store, and in the treatment's vectors if it has its own.

        Raises:
            StoreDown: the store did not answer.
        """
        cut = self.snapshot.bundle.manifest.offsets
        next_ = {**cut, **await self.store.progress({token.partition for token in tokens})}
        folded = {token for token in tokens if next_.get(token.partition, 0) > token.offset}
        vectors = self._treatment.vectors if self._treatment else None
        return folded if vectors is None or vectors.broken else folded & vectors.folded(folded)
