"""The nightly job, from clicks to a published bundle. Safe to run twice: finished stages are not done again."""

from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

from feast import FeatureStore
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from feature_repo.card import DatasetCard
from spark_jobs import carry, features, lake, training_set, validate
from spark_jobs.config import NightConfig
from spark_jobs.days import Window, latest, window
from spark_jobs.last_out import closing, cut_by, hold_out
from spark_jobs.lock import only_one
from spark_jobs.progress import Clock, Progress
from spark_jobs.records import NightSummary
from spark_jobs.renewal import Renewal
from spark_jobs.session import spark_session
from training.bundle import Shelf
from training.shares import CategoryShares

SIDES = ("query", "item")


class NightError(RuntimeError):
    """The night cannot run as asked. The message says why and what to do."""


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
        """Land, compute features, build the training set, train, judge, publish, load online.

        Args:
            day: The test day; the window ends where it begins. None: that of the newest click.
            again: Do finished stages again.

        Raises:
            NightError: another run holds the lock, or the window has no clicks.
        """
        lock = self.home / "nightly.lock"
        with only_one(lock) as alone:
            if not alone:
                raise NightError(f"another nightly run holds {lock}; wait for it to end")
            return self._run(day, again)

    def _run(self, day: date | None, again: bool) -> NightSummary:
        clock = Clock(self.progress)
        home, card, config = self.home, self.card, self.config
        with ExitStack() as stack:
            with clock.stage("start Spark"):
                spark = stack.enter_context(spark_session(config, home / "spark", self.jars))
            clicks_folder = home / "lake" / "clicks"
            if self.log and (again or not (clicks_folder / "landing=log").exists()):
                with clock.stage("land the log in the click lake"):
                    log = lake.read_log(spark, card, self.log)
                    validate.check_log(*lake.count_valid(log), config.rules)
                    lake.land(log, card, clicks_folder, "log")
                    lake.compact(spark, clicks_folder)
            if self.bootstrap and self.topic:
                with clock.stage("land new clicks from Kafka"):
                    lake.land_new(spark, card, home, self.bootstrap, self.topic, at_most=config.lake_batch)
            clicks = lake.read_lake(spark, card, clicks_folder)
            last_out = cut_by(card, config) == "last-out"
            day = day or latest(card, clicks.agg(F.max("event_time")).first()[0], last_out)
            span = window(card, day, config.window_days or card.window_days)
            span = closing(span, clicks) if last_out else span
            folder = training_set.folder_of(home, day)
            done = training_set.data_card(folder)
            asked = {"start": span.start, "cut": span.cut, "negatives": config.negatives, "seed": config.seed}
            asked |= {"negative_mix": config.negative_mix.model_dump(), "cut_by": cut_by(card, config)}
            made = done is not None and all(done.get(key) == value for key, value in asked.items())
            renewal = Renewal(home, card, self.store, config, clock)
            if made and not again and (record := renewal.finished(day, done)):
                return record
            if again or not made or not training_set.has_rows(folder):
                in_window = F.col("event_time").between(span.start, span.cut - 1)
                known, test = clicks, clicks.where(F.col("event_time").between(span.cut, span.end - 1))
                if last_out:
                    known, test = hold_out(clicks, span)
                if known.where(in_window).limit(1).count() == 0:
                    raise NightError(f"the lake has no clicks in the window before {day}; choose another --date")
                with clock.stage("check the clicks"):
                    validate.check_days(known, span, card, config.rules)
                profiles, shares = self._features(known, span, clock)
                with clock.stage("sample negatives"):
                    training_set.sample(known, test, profiles, card, span, config, folder, home / "offline")
                rows = known.where(in_window).count()
                with clock.stage("join features as of each click", rows) as advance:
                    training_set.join(self.store, card, span, config, folder, advance, shares, spark)
            offsets = _offsets(clicks, span.cut)
        return renewal.run(day, folder, offsets, again)

    def _features(
        self, clicks: DataFrame, span: Window, clock: Clock
    ) -> tuple[dict[str, DataFrame], CategoryShares | None]:
        """Write the histories of profiles and activity; returns the catalogues, and what is counted by category."""
        offline, card, profiles = self.home / "offline", self.card, {}
        with clock.stage("compute features as of their time"):
            for side in SIDES:
                profiles[side] = features.read_profiles(clicks.sparkSession, card, self._catalogue(), side)
                features.write_history(profiles[side], offline, f"{side}_profile")
            shelf = Shelf(self.home / "bundles")
            parent = shelf.ancestor(span.cut)
            inherited = shelf.manifest(parent).query.shares if parent else None
            before = clicks.where(F.col("event_time") < span.cut)
            shares = features.category_shares(before, profiles["item"], card, inherited)
            landed, go_on = self.home / "lake" / "clicks", cut_by(card, self.config) == "day"
            carry.write(clicks, landed, offline, card, profiles["item"], shares, span.start, go_on)
        with clock.stage("check the features"):
            validate.check_features(offline, card, shares)
            in_window = before.where(F.col("event_time") >= span.start)
            validate.check_known(in_window, profiles["item"], card, self.config.rules)
        return profiles, shares

    def _catalogue(self) -> Path:
        if self.log is None and any(getattr(self.card, side).table for side in SIDES):
            raise NightError("the dataset card names catalogue tables; say where they are with --log")
        return self.log or self.home


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
