"""The nightly job, from clicks to a published bundle. Safe to run twice: finished stages are not done again."""

import fcntl
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import pyarrow as pa
from feast import FeatureStore
from pydantic import BaseModel
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from feature_repo.card import DatasetCard
from feature_repo.store import service_fields
from spark_jobs import features, lake, publish, retrain, training_set
from spark_jobs.config import NightConfig
from spark_jobs.days import latest, window
from spark_jobs.gate import Verdict, judge
from spark_jobs.progress import Progress
from spark_jobs.session import spark_session
from training.bundle import Bundle, Shelf
from training.evaluation import summarise
from training.trainer import Fitted

SIDES = ("query", "item")


class NightError(RuntimeError):
    """The night cannot run as asked. The message says why and what to do."""


class NightSummary(BaseModel):
    """What a nightly run did."""

    date: date
    training_set_sha256: str
    rows: int
    stages: dict[str, float]
    bundle: str
    gate: Verdict
    metrics: dict[str, float]


@dataclass
class Night:
    """The inputs of a run.

    Args:
        log: The folder of the dataset's log files, or None to use what has landed.
        bootstrap, topic: The Kafka topic to land new clicks from, or None. ``jars``: Spark's connector for it.
    """

    home: Path
    card: DatasetCard
    store: FeatureStore
    config: NightConfig
    progress: Progress
    log: Path | None = None
    bootstrap: str | None = None
    topic: str | None = None
    jars: list[Path] = field(default_factory=list)

    def run(self, day: date | None = None, again: bool = False) -> NightSummary:
        """Land, compute features, build the training set, train, judge, publish, materialise.

        Args:
            day: The test day; the window ends where it begins. None: the newest day that is complete in the lake.
            again: Do finished stages again.

        Raises:
            NightError: another run holds the lock, or the window has no clicks.
        """
        with _alone(self.home / "nightly.lock"):
            return self._run(day, again)

    def _run(self, day: date | None, again: bool) -> NightSummary:
        clock = _Clock(self.progress)
        home, card, config = self.home, self.card, self.config
        with ExitStack() as stack:
            with clock.stage("start Spark"):
                spark = stack.enter_context(spark_session(config, home / "spark", self.jars))
            clicks_folder = home / "lake" / "clicks"
            if self.log and (again or not (clicks_folder / "landing=log").exists()):
                with clock.stage("land the log in the click lake"):
                    lake.land(lake.read_log(spark, card, self.log), card, clicks_folder, "log")
            if self.bootstrap and self.topic:
                with clock.stage("land new clicks from Kafka"):
                    lake.land_new(spark, card, home, self.bootstrap, self.topic, at_most=config.lake_batch)
            clicks = lake.read_lake(spark, card, clicks_folder).persist()
            day = day or latest(card, clicks.agg(F.max("event_time")).first()[0])
            span = window(card, day, config.window_days or card.window_days)
            folder = training_set.folder_of(home, day)
            done = training_set.data_card(folder)
            asked = {"start": span.start, "cut": span.cut, "negatives": config.negatives, "seed": config.seed}
            if again or done is None or any(done[key] != value for key, value in asked.items()):
                in_window = F.col("event_time").between(span.start, span.cut - 1)
                if clicks.where(in_window).limit(1).count() == 0:
                    raise NightError(f"the lake has no clicks in the window before {day}; choose another --date")
                profiles = self._features(clicks, clock)
                with clock.stage("sample negatives"):
                    training_set.sample(clicks, profiles, card, span, config, folder)
                rows = clicks.where(in_window).count()
                with clock.stage("join features as of each click", rows) as advance:
                    training_set.join(self.store, card, span, config, folder, advance)
            offsets = _offsets(clicks, span.cut)
        return self._publish(day, folder, offsets, clock)

    def _features(self, clicks: DataFrame, clock: "_Clock") -> dict[str, DataFrame]:
        profiles = {}
        with clock.stage("compute features as of their time"):
            for side in SIDES:
                half_lives = getattr(self.card, side).half_lives_ms
                profiles[side] = features.read_profiles(clicks.sparkSession, self.card, self._catalogue(), side)
                features.write_history(profiles[side], self.home / "offline", f"{side}_profile")
                features.write_history(
                    features.activity(clicks, side, half_lives), self.home / "offline", f"{side}_activity"
                )
        return profiles

    def _catalogue(self) -> Path:
        if self.log is None and any(getattr(self.card, side).table for side in SIDES):
            raise NightError("the dataset card names catalogue tables; say where they are with --log")
        return self.log or self.home

    def _publish(self, day: date, folder: Path, offsets: dict[int, int], clock: "_Clock") -> NightSummary:
        shelf, config = Shelf(self.home / "bundles"), self.config
        card = training_set.data_card(folder)
        parent = _parent(shelf, card["cut"])
        version = retrain.version_of(day.isoformat(), card, config, parent)
        if version in shelf.versions():
            bundle = shelf.load(version)
            verdict = Verdict(verdict="published", reason="published by an earlier run of the same night")
            shelf.promote(version)
        else:
            bundle, verdict = self._train(folder, card, version, parent, offsets, clock)
            if verdict.verdict == "published":
                with clock.stage("publish the bundle"):
                    shelf.publish(bundle)
                    publish.write_states(bundle, self.home / "offline")
                    shelf.prune(config.keep_bundles)
        with clock.stage("materialise the catalogues online"):
            publish.materialise_profiles(self.store)
        return NightSummary(
            date=day,
            training_set_sha256=card["sha256"],
            rows=card["rows"],
            stages=clock.seconds,
            bundle=version,
            gate=verdict,
            metrics=bundle.manifest.metrics,
        )

    def _train(
        self, folder: Path, card: dict, version: str, parent: str | None, offsets: dict[int, int], clock: "_Clock"
    ) -> tuple[Bundle, Verdict]:
        shelf, config, cut = Shelf(self.home / "bundles"), self.config, card["cut"]
        start_from = shelf.load(parent) if parent else None
        with clock.stage("train DAT", config.model.epochs) as advance:
            data, fitted = retrain.train(folder, self.card, config, start_from, cut, lambda report: advance(1))
        test = retrain.read_test(folder)
        metrics, hr100, in_service = {}, None, None
        if len(test):
            catalogues = retrain.read_catalogues(self.home / "offline")
            with clock.stage("evaluate on the test day", len(test) * (2 if parent is None else 3)) as advance:
                metrics = self._measure(fitted, test, catalogues, cut, advance)
                hr100 = metrics["live_hr100"]
                if start_from is not None:
                    old = Fitted.of(start_from)
                    found = retrain.test_ranks(old, test, catalogues, self.card, cut, True, _steps(advance))
                    in_service = summarise(found).hr100
        metrics |= {"queries": len(fitted.queries.ids), "items": len(fitted.items.ids)}
        coverage = card["test_clicks_known_item"] / card["test_clicks"] if card["test_clicks"] else None
        verdict = judge(fitted, coverage, hr100, in_service, config)
        services = {name: service_fields(self.store, name) for name in ("query_tower", "item_tower")}
        bundle = retrain.make_bundle(fitted, version, self.card, card, offsets, services, metrics, parent)
        return bundle, verdict

    def _measure(self, fitted: Fitted, test: pa.Table, catalogues: dict, cut: int, advance) -> dict[str, float]:
        metrics = {}
        for name, live in (("static", False), ("live", True)):
            found = retrain.test_ranks(fitted, test, catalogues, self.card, cut, live, _steps(advance))
            metrics |= {f"{name}_{key}": value for key, value in summarise(found).model_dump().items()}
        return metrics


def _parent(shelf: Shelf, cut_ms: int) -> str | None:
    """The newest bundle with an earlier cut: what a night starts from and is compared with, whenever it is run."""
    earlier = [(shelf.manifest(version).cut_ms, version) for version in shelf.versions()]
    return max((entry for entry in earlier if entry[0] < cut_ms), default=(0, None))[1]


def _offsets(clicks: DataFrame, cut_ms: int) -> dict[int, int]:
    """The cut in Kafka: for each partition the first landed offset that the bundle must not skip.

    The updater starts there. A partition whose landed clicks are all from before the cut starts behind them.
    """
    after = F.min(F.when(F.col("event_time") >= cut_ms, F.col("offset")))
    found = (
        clicks.where(F.col("partition").isNotNull())
        .groupBy("partition")
        .agg(after.alias("after"), F.max("offset").alias("last"))
    )
    return {row["partition"]: row["last"] + 1 if row["after"] is None else row["after"] for row in found.collect()}


def _steps(advance):
    """Turn "so many done" into "so many more"."""
    done = 0

    def told(total: int) -> None:
        nonlocal done
        advance(total - done)
        done = total

    return told


class _Clock:
    """Shows stages and keeps how long each took, in seconds."""

    def __init__(self, progress: Progress):
        self.progress, self.seconds = progress, {}

    @contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator:
        started = time.perf_counter()
        with self.progress.stage(name, total) as advance:
            yield advance
        self.seconds[name] = round(time.perf_counter() - started, 2)


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Hold the lock file, which the operating system releases when the process ends, however it ends."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise NightError(f"another nightly run holds {lock}; wait for it to end") from None
        yield
