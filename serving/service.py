"""The service as a whole: what is running behind the API, and what it tells of itself."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from feast import FeatureStore

from serving import metrics, schemas
from serving.clicks import ClickDesk
from serving.clock import Clock
from serving.config import ServingConfig
from serving.desk import Desk
from serving.experiment import Experiment, Popularity
from serving.features import OnlineFeatures, StoreDown
from serving.follower import Follower
from serving.impressions import ImpressionLog
from serving.projection import Plane, fit_plane
from serving.query_vectors import QueryVectors
from serving.retrieval import Answerer, Retriever
from serving.served import Served
from serving.swap import BundleWatch, Running
from streaming.clicks import ClickWriter
from streaming.config import KafkaConnection
from streaming.contract import check_services
from training.bundle import Bundle, Shelf


class CannotStart(RuntimeError):
    """The service cannot start. The message says why and what to do."""


_BACKGROUND, _NEAR = 500, 24  # items on the map


@dataclass(frozen=True)
class Treatment:
    """An experiment's other way of answering, and what keeps its vectors up to the stream."""

    answerer: Answerer
    follower: Follower | None
    vectors: QueryVectors | None

    def close(self) -> None:
        for part in (self.follower, self.vectors):
            if part is not None:
                part.close()


class Service:
    """Starts everything that answers from one bundle; :meth:`close` ends it.

    Args:
        bundle: The bundle to serve.
        store: The Feast store that answers online.
        kafka: How to reach the brokers.
        home: The home folder: its shelf is watched for another bundle, and a replay leaves its progress there.

    Raises:
        ContractError: the registered feature services are not those that the bundle was trained with.
        KafkaError: no broker answers.
    """

    def __init__(
        self,
        bundle: Bundle,
        store: FeatureStore,
        kafka: KafkaConnection,
        home: Path,
        config: ServingConfig | None = None,
    ):
        self.config = config or ServingConfig()
        self.started = time.time()
        self._home = home
        self._plane: tuple[str, Plane, list] | None = None
        self._kafka = kafka
        self._store = store
        check_services(store, bundle.manifest)
        self.features = OnlineFeatures(store)
        self.clock = Clock.choose(
            self.config.clock,
            lambda: self.retriever.served.corpus.newest_event,
            bundle.manifest.cut_ms,
            self.config.replay_after_days,
        )
        self.retriever = Retriever(Served.of(bundle, self.config), self.features, self.clock)
        metrics.SERVED.labels(bundle.version).set(1)
        self.impressions = ImpressionLog(kafka, self.config.impressions)
        self._treatment = self._treat()
        self.experiment = Experiment(
            self.retriever, self.impressions, self.config.experiment, self._treatment and self._treatment.answerer
        )
        self.desk = Desk(self.experiment, self.config)
        writer = ClickWriter(kafka)
        self.clicks = ClickDesk(writer, self.count, self.config.produce_timeout_s, self.config.max_pending)
        self.follower = Follower(self.retriever.served.corpus, kafka)
        self._watch = BundleWatch(
            Shelf(home / "bundles"),
            current=lambda: Running(self.retriever.served, self.follower),
            prepare=self._prepare,
            swap=self._swap,
            poll_s=self.config.watch_s,
            patience_s=self.config.swap_patience_s,
        )

    def _treat(self) -> Treatment | None:
        """Start what an experiment's treatment needs.

        Raises:
            BundleError: there is no such bundle. ContractError: it does not fit the registered services.
        """
        asked = self.config.experiment
        if asked is None:
            return None
        if asked.bundle is None:
            ranked = self.retriever if asked.ranking == "model" else Popularity(self.retriever)
            return Treatment(ranked, None, None)
        running = self._prepare(Shelf(self._home / "bundles").load(asked.bundle))
        vectors = QueryVectors(self._kafka, asked.bundle)
        other = Retriever(running.served, self.features, self.clock, vectors)
        return Treatment(Popularity(other) if asked.ranking == "popularity" else other, running.follower, vectors)

    def _prepare(self, bundle: Bundle) -> Running:
        """Raises:
        ContractError: the registered feature services are not those that the bundle was trained with.
        """
        check_services(self._store, bundle.manifest)
        served = Served.of(bundle, self.config)
        return Running(served, Follower(served.corpus, self._kafka))

    def _swap(self, running: Running) -> None:
        metrics.SERVED.labels(self.retriever.served.version).set(0)
        self.retriever.served = running.served  # from here on requests are answered by it
        metrics.SERVED.labels(running.served.version).set(1)
        self.follower = running.follower

    def close(self) -> None:
        self._watch.close()
        self.desk.close()
        self.experiment.close()
        self.follower.close()
        if self._treatment is not None:
            self._treatment.close()
        self.impressions.close()
        self.clicks.close()

    def count(self, query_id: str) -> int:
        """How many clicks a query's activity counts; 0 if the store cannot say."""
        try:
            return self.retriever.clicks(query_id)
        except StoreDown:
            return 0

    def item(self, item_id: str) -> schemas.ItemOut | None:
        """What is known of an item; None if nobody knows it."""
        corpus = self.retriever.served.corpus
        row = corpus.row(item_id)
        try:
            features = self.features.items([item_id])[0]
        except StoreDown:
            features = {}
        if row is None and not features.get("known"):
            return None
        clicks, last = (0, 0) if row is None else corpus.activity(row)
        return schemas.ItemOut(
            item_id=item_id,
            title=next((features[name] for name in self.features.texts if features.get(name)), None),
            category=[] if row is None else corpus.category_of(row),
            features={name: value for name, value in features.items() if name != "known"},
            clicks=clicks,
            last_click=last or None,
            in_index=row is not None,
        )

    def query_ids(self, limit: int, prefix: str) -> Sequence[str]:
        """Ids of the bundle's queries, those with the latest clicks first; with a prefix, in the bundle's order."""
        table = self.retriever.served.bundle.queries
        if prefix:
            found = (id_ for id_ in table.ids if id_.startswith(prefix))
            return [id_ for id_, _ in zip(found, range(limit), strict=False)]
        limit = min(limit, len(table.ids))
        newest = np.argsort(-table.last_click, kind="stable")[:limit]
        return [table.ids[row] for row in newest]

    def map(self, query_id: str, background: bool) -> dict:
        """2-D positions: p_u, the memories of a_u, the latest clicked items, the top N; ``background``: some items."""
        served = self.retriever.served
        plane, sample = self._plane_of(served)
        states, vector = self.retriever.locate(query_id)
        index, seen = served.corpus.index, states.seen[0][-8:]
        near = index.search(vector, _NEAR, [states.seen[0]])[0][0]
        answer = {
            "bundle": served.version,
            "query": _rounded(plane.of_queries(vector))[0],
            "memories": _rounded(plane.of_items(states.a[0])) if states.folded[0] else [],
            "seen": _rounded(plane.of_items(index.vectors(seen))),
            "near": _rounded(plane.of_items(index.vectors(near[near >= 0]))),
        }
        return {**answer, "items": sample} if background else answer

    def progress(self) -> bytes | None:
        """What a replay last wrote of its hit rates (JSON), or None."""
        try:
            return (self._home / "progress.json").read_bytes() or None
        except OSError:
            return None

    def not_ready(self) -> str | None:
        """Why the service is not ready to answer with fresh vectors, or None if it is."""
        other = self._treatment
        if other and other.follower and not (other.follower.caught_up and other.vectors.wait_caught_up(0)):
            return f"the experiment's bundle {self.config.experiment.bundle} is catching up with the stream"
        if not self.follower.caught_up:
            behind = self.follower.error or f"{self.follower.lag} records behind"
            return f"the index is catching up with the stream ({behind})"
        try:
            self.features.counts(["readiness"])
        except StoreDown as error:
            return f"the online store does not answer: {error}"
        return None

    def status(self) -> dict:
        served, follower = self.retriever.served, self.follower
        manifest, corpus = served.bundle.manifest, served.corpus
        return {
            "bundle": {
                "version": manifest.version,
                "dataset": manifest.dataset,
                "created": manifest.created.isoformat(),
                "cut": manifest.cut_ms,
                "queries": len(served.bundle.queries.ids),
                "metrics": manifest.metrics,
                "preparing": self._watch.preparing,
                "refused": self._watch.refused,
            },
            "index": {
                "kind": corpus.index.kind,
                "items": len(corpus),
                "probes": None if corpus.index.kind == "exact" else corpus.index.probes,
                "updates": corpus.updates,
                "rebuilding": corpus.index.rebuilding,
            },
            "stream": {
                "caught_up": follower.caught_up,
                "lag": follower.lag,
                "delay_ms": follower.delay_ms,
                "applied": follower.applied,
                "foreign": follower.foreign,
                "unreadable": follower.unreadable,
                "error": follower.error,
                "newest_event": corpus.newest_event,
            },
            "clock": {"now": self.clock.now_ms(), "replay": self.clock.replay},
            "load": {
                "pending": self.desk.pending,
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
            "seconds": {step: round(spent, 3) for step, spent in self.retriever.seconds.items()},
            "uptime_s": round(time.time() - self.started, 1),
        }

    def _plane_of(self, served: Served) -> tuple[Plane, list]:
        """The map's plane, fitted once a bundle, and a sample of items on it."""
        if self._plane is None or self._plane[0] != served.version:
            rows = served.corpus.index.rows()
            rng = np.random.default_rng(0)
            fitted = rng.choice(rows, min(len(rows), 20_000), replace=False) if len(rows) else rows
            queries = served.bundle.queries.vectors
            some = queries[rng.choice(len(queries), min(len(queries), 20_000), replace=False)]
            plane = fit_plane(served.corpus.index.vectors(fitted), some)
            shown = plane.of_items(served.corpus.index.vectors(fitted[:_BACKGROUND]))
            self._plane = (served.version, plane, _rounded(shown))
        return self._plane[1], self._plane[2]


def _rounded(points: np.ndarray) -> list[list[float]]:
    return np.round(points, 4).tolist()
