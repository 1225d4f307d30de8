"""The nightly job, from clicks to a published bundle. Safe to run twice: finished stages are not done again.

Its steps, in order:

1. land new clicks in the lake, none that are forgotten :mod:`spark_jobs.land_log`, :mod:`spark_jobs.land_kafka`
2. cut the window, and check its clicks                 :mod:`model.windows`, :mod:`spark_jobs.validate`
3. write catalogues and activity for Feast              :mod:`spark_jobs.features`, :mod:`spark_jobs.activity`
4. write the training set                               :mod:`spark_jobs.training_set`
5. hold what the trainer reads to Feast                 :mod:`spark_jobs.feast_check`
6. choose what the settings leave to the log            :mod:`evaluation.closed_form_choice`
7. train, from the last bundle                          :mod:`training.trainer`
8. evaluate on the test clicks                          :mod:`spark_jobs.train`
9. judge                                                :mod:`spark_jobs.gate`
10. publish, and load the catalogues online             :mod:`spark_jobs.publish`

Each step writes whole or not at all; training goes on from its checkpoint; the night's record comes last.
"""

import hashlib
import json
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field, replace
from datetime import date
from functools import partial
from pathlib import Path

from feast import FeatureStore
from filelock import FileLock, Timeout
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from evaluation import closed_form_choice
from feature_repo.card import DatasetCard
from feature_repo.place import Place, UrlPath
from feature_repo.store import service_fields
from feature_repo.table import delete_table, whole
from model.bundle import Bundle
from model.closed_form_choice import ClosedFormChoice
from model.newest_day import LOOKED_AT, newest_day
from model.settings.night import NightConfig
from model.settings.settings import DEFAULT_NEGATIVES
from model.settings.updater import UpdaterConfig
from model.shared_bundles import open_bundles
from model.windows import Window, day_of, latest, window
from spark_jobs import activity, features, lake, land_kafka, land_log, mlflow_log, publish, run_log, train, training_set
from spark_jobs.activity_snapshot import Activity, is_kept, snapshot
from spark_jobs.data_card import describe
from spark_jobs.feast_check import check_against_feast
from spark_jobs.forget import rewrite
from spark_jobs.forgotten import take_notes
from spark_jobs.gate import Evidence, Verdict, judge
from spark_jobs.land_catalogue import land_catalogue
from spark_jobs.leave_last_out import cut_by, lay_out, leave_last_out
from spark_jobs.progress import Clock, Progress, steps
from spark_jobs.run_log import NightSummary
from spark_jobs.session import is_local, reach_store, side_by_side, spark_session
from spark_jobs.shared_home import check_shared
from spark_jobs.validate import check_card, check_days, check_features, check_known, check_set
from training.bring_up import at_cut
from training.chosen import chosen
from training.fit import fit
from training.trained_model import TrainedModel
from training.training_set import TrainingSet

SIDES = ("query", "item")


class NightError(RuntimeError):
    """The night cannot run as asked. The message says why and what to do."""


@dataclass(frozen=True)
class Cut:
    """A night's clicks: to train on, those after them that belong to the bundle's state, and those to predict."""

    span: Window
    before: DataFrame
    window: DataFrame
    later: DataFrame
    test: DataFrame
    all_counted: bool
    """Whether the lake has no click before the window that is not in the bundle's state."""


@dataclass
class Night:
    """The inputs of a run.

    Args:
        home: The home; or where it is a URL, this machine's folder for what is its own.
        config: With the card's model and negatives: :meth:`model.settings.settings.Settings.night_of`.
        log: The folder of the dataset's log files, or None to use what has landed.
        kafka: Where to land new clicks from, or None. ``jars``: Spark's connector for it.
        before_publish: Called before a bundle goes into service. What is registered for the service changes here and
            not earlier: until then it must be able to start on the bundle that it has.
        bundles_url: Where bundles are published, if it is not the home.
        shared: Where lake, features, training sets and records are; None: in the home.
    """

    home: Path
    card: DatasetCard
    store: FeatureStore
    config: NightConfig
    progress: Progress
    log: Path | None = None
    kafka: UpdaterConfig | None = None
    jars: list[Path] = field(default_factory=list)
    before_publish: Callable[[], None] = lambda: None
    bundles_url: str | None = None
    shared: Place | None = None

    def __post_init__(self) -> None:
        self.clock, self.master = Clock(self.progress), ""
        self.root: Place = self.shared or self.home
        self.lake, self.offline = self.root / "lake" / "clicks", self.root / "offline"
        self.bundles = open_bundles(self.home, self.bundles_url)
        self.checkpoints = self.home / "training"

    def run(self, day: date | None = None, again: bool = False) -> NightSummary:
        """Run all steps.

        Args:
            day: The test day; the window ends where it begins. None: that of the newest click.
            again: Do finished stages again.

        Raises:
            NightError: another run holds the lock, or the window has no clicks.
        """
        lock = self.home / "nightly.lock"
        try:
            with FileLock(lock, timeout=0):
                self.bundles.refresh()
                return self._run(day, again)
        except Timeout:
            raise NightError(f"another nightly run holds {lock}; wait for it to end") from None

    def _run(self, day: date | None, again: bool) -> NightSummary:
        with ExitStack() as stack:
            with self.clock.stage("start Spark"):
                spark = stack.enter_context(self._spark())
            self.master = spark.sparkContext.master or ""
            reach_store(spark, self.root)
            check_shared(spark, self.root)
            self._land(spark, again)
            day = day or self._newest_day()
            folder, made_from = training_set.folder_of(self.root, day), self._made_from(day)
            card = training_set.data_card(folder)
            finished = card if card is not None and card["made_from"] == made_from else None
            if finished and not again and (record := self._finished(day, finished)):
                return record
            if again or not finished or not training_set.has_rows(folder):
                self._build(self._cut(spark, day), folder, made_from)
        return self._train_and_publish(day, folder, again)

    def _spark(self) -> AbstractContextManager[SparkSession]:
        return spark_session(self.config, self.home / "spark", self.jars, lambda: self.clock.last)

    def _land(self, spark: SparkSession, again: bool) -> None:
        take_notes(self.home, self.lake)
        if self.log:
            with self.clock.stage("land what is new in the log"):
                on_one = is_local(spark) and not isinstance(self.lake, UrlPath)
                cluster = None if on_one else spark
                landing = land_log.land_log(self.card, self.log, self.lake, self.config.rules, again, cluster)
            for line in landing.lines() if landing else ():
                self.progress.tell(line)
            for side in SIDES:
                for problem in land_catalogue(self.card, self.log, side, self._catalogue(side)).problems:
                    self.progress.tell(problem)
        if self.kafka:
            with self.clock.stage("land new clicks from Kafka"):
                land_kafka.land_new(spark, self.card, self.root, self.kafka, at_most=self.config.lake_batch)
        for line in rewrite(self.home, self.bundles, self.root).lines():
            self.progress.tell(line)
        spark.catalog.clearCache()  # a session that an earlier night used knows files by their folders' names

    def _made_from(self, day: date) -> str:
        """A hash of all that a training set depends on: the lake, the cut, the card, the catalogues, the settings."""
        config, card = self.config, self.card
        catalogues = [training_set.sha256(whole(self._catalogue(side))) for side in SIDES]
        known = [
            self._dates(day), land_kafka.offsets_at(self.lake, day), card.model_dump(mode="json"),
            catalogues, cut_by(card, config), config.window_days,
            config.negatives, config.seed, config.log_state,
        ]  # fmt: skip
        return hashlib.sha256(json.dumps(known).encode()).hexdigest()

    def _dates(self, day: date) -> dict[str, str]:
        """The fingerprints of the lake's dates, less those that a night of this day deletes."""
        found = lake.fingerprints(self.lake)
        if self.config.keep_days is None:
            return found
        gone = lake.before(self.card, found, self._span(day).start - self.config.keep_days * self.card.day_ms)
        return {date: files for date, files in found.items() if date not in gone}

    def _span(self, day: date) -> Window:
        return window(self.card, day, self.config.window_days or self.card.window_days)

    def _cut(self, spark: SparkSession, day: date) -> Cut:
        """Cut the lake at a date; see :mod:`spark_jobs.land_kafka` for what belongs to the state."""
        card, config, time, span = self.card, self.config, F.col("event_time"), self._span(day)
        clicks = lake.read_lake(spark, card, self.lake, since=day_of(card, span.start).isoformat())
        state = clicks.where(land_kafka.in_state(self.lake, day))
        before, chosen = state.where(time < span.start), state.where(lake.between(card, span.start, span.cut))
        if cut_by(card, config) == "last-out":
            # The test clicks follow on the window at once, however early that ends.
            ends = span.cut
            chosen, test = leave_last_out(chosen, card)
            chosen = lay_out(chosen, card) if card.clicks.timeless else chosen
            newest = chosen.agg(F.max("event_time")).collect()[0][0]
            start = 0 if card.clicks.timeless else span.start  # where such a log is laid out
            span = replace(span, start=start, cut=span.cut if newest is None else newest + 1)
            test = test.withColumn("event_time", F.lit(span.cut).cast("long"))
            later = test.unionByName(state.where(time >= ends))
        else:
            test = clicks.where(lake.between(card, span.cut, span.end))
            later = state.where((F.col("date") >= day_of(card, span.cut).isoformat()) & (time >= span.cut))
            if config.log_state == "cut":
                later = later.where(F.col("partition").isNotNull())
        if chosen.limit(1).count() == 0:
            raise NightError(self._nothing_before(day))
        counted = land_kafka.is_whole(self.lake, day)
        if not counted:
            counted = clicks.where((time < span.start) & ~land_kafka.in_state(self.lake, day)).limit(1).count() == 0
        return Cut(span, before, chosen, later, test, counted)

    def _nothing_before(self, day: date) -> str:
        dates = sorted(lake.fingerprints(self.lake))
        if len(dates) == 1:
            return (
                f"all clicks of the lake are of {dates[0]}: no day is left to learn from before the one to test on. "
                "Bring more days, or test on each query's last click: DAT_NIGHT__CUT=last-out"
            )
        return (
            f"the lake has no clicks in the window before {day}: its days with clicks are "
            f"{dates[0]} to {dates[-1]}; choose another --date"
        )

    def _build(self, cut: Cut, folder: Place, made_from: str) -> None:
        """Steps 2 to 4: check the clicks, write features and training set."""
        card, config, clock, span = self.card, self.config, self.clock, cut.span
        spark = cut.window.sparkSession
        days, negatives = not card.clicks.timeless, config.negatives or DEFAULT_NEGATIVES
        with clock.stage("check the clicks"):
            if days:
                check_days(cut.before.unionByName(cut.window), span, card, config.rules)
        with clock.stage("write features for Feast"):
            catalogues = {side: features.read_profiles(spark, card, self._catalogue(side), side) for side in SIDES}
            known = snapshot(
                spark, self.root / "activity", cut.before, self.lake, card, span.start if days else 0, cut.all_counted
            )
            self._write_features(cut, catalogues, known)
            check_features(self.offline, card)
            check_known(cut.window, catalogues["item"], card, config.rules)
        with clock.stage("write the training set"):
            training_set.write(
                cut.window, cut.later, cut.test, known, catalogues, card, span, negatives, config.seed, folder
            )
            rows = training_set.on_disk(folder, self.home)
            check_set(rows, span, negatives)
            described = {
                "date": folder.name, "start": span.start, "cut": span.cut, "end": span.end,
                "cut_by": cut_by(card, config), "negatives": config.negatives, "seed": config.seed,
                **describe(rows, card, training_set.last_card(folder)),
            }  # fmt: skip
            described["days"] = -((described["first_click"] - span.cut) // card.day_ms)
            log = land_log.summary(self.lake)
            described |= {"log": log and log.model_dump(), "made_from": made_from}
            described["sha256"] = training_set.sha256(rows)
            check_card(described, card, config.rules)
            training_set.write_card(folder, described)

    def _write_features(self, cut: Cut, catalogues: dict[str, DataFrame], known: Activity) -> None:
        """Write the offline histories: catalogues, and activity after each click of the window."""
        jobs = [
            partial(features.write_history, catalogue, self.offline, f"{side}_profile")
            for side, catalogue in catalogues.items()
        ]
        for side, half_lives in (("query", self.card.query.half_lives_ms), ("item", self.card.item.half_lives_ms)):
            rows = activity.history(cut.window, f"{side}_id", half_lives, getattr(known, side))
            jobs.append(partial(features.write_history, rows, self.offline, f"{side}_activity"))
        side_by_side(cut.window.sparkSession, *jobs)

    def _catalogue(self, side: str) -> Place:
        """Where a side's catalogue is landed."""
        folder = self.root / "lake" / "catalogues" / side
        if self.log is None and not folder.exists():
            raise NightError("no catalogue has been landed: run a night with --log first")
        return folder

    def _newest_day(self) -> date:
        last_out = cut_by(self.card, self.config) == "last-out"
        days = lake.day_counts(self.lake, LOOKED_AT)
        if not days:
            raise NightError(f"the click lake {self.lake} is empty: land clicks first, by a night without --no-log")
        if last_out:
            return latest(self.card, max(last for _, _, last in days), last_out)
        newest = newest_day(self.card, days, self.config.rules.min_day)
        for line in newest.passed_over:
            self.progress.tell(line)
        return latest(self.card, newest.last_ms)

    def _finished(self, day: date, card: dict) -> NightSummary | None:
        """The night's record, if it is of this training set (by its data card) and of these settings."""
        record = run_log.read(self.root, day)
        if record is None or record.inputs != self._inputs(day, card, record.parent):
            return None
        return record.model_copy(update={"stages": self.clock.seconds, "spark_master": self.master})

    def _inputs(self, day: date, card: dict, parent: str | None) -> str:
        """What a record must agree with: the version, which covers data, model and parent, and the gate's settings."""
        config = self.config
        gate = config.model_dump_json(include={n for n in type(config).model_fields if n.startswith("gate_")})
        return f"{train.version_of(day.isoformat(), card, config.model, parent)} {gate} {config.test_clicks}"

    def _parent(self, card: dict) -> str | None:
        """The bundle to start from. A set without its last clicks starts from one that was made alike: any other has
        learnt from them."""
        parent = self.bundles.ancestor(card["cut"])
        if parent and card["cut_by"] == "last-out":
            return parent if self.bundles.manifest(parent).lineage.get("cut_by") == "last-out" else None
        return parent

    def _train_and_publish(self, day: date, folder: Place, again: bool) -> NightSummary:
        """Steps 5 to 10, for a finished training set."""
        card, config = training_set.data_card(folder), self.config
        assert card is not None, f"{folder} is not finished"
        if not again and (record := self._finished(day, card)):
            return record
        record, parent = run_log.read(self.root, day), self._parent(card)
        version = train.version_of(day.isoformat(), card, config.model, parent)
        if version in self.bundles.versions():  # an earlier run ended between publishing and its record
            earlier = Verdict(verdict="published", reason="published by an earlier run of the same night")
            verdict = record.gate if record and record.bundle == version else earlier
            metrics = self.bundles.manifest(version).metrics
            self.before_publish()
            self.bundles.put_into_service(version)
        else:
            metrics, verdict = self._train(folder, card, version, parent, day)
        with self.clock.stage("load the catalogues online"):
            publish.load_profiles(self.store, self.offline, self.root / "loaded", again)
        summary = NightSummary(
            date=day, training_set_sha256=card["sha256"], rows=card["rows"], days=card["days"],
            log=card.get("log"), stages=self.clock.seconds, bundle=version, gate=verdict, metrics=metrics,
            parent=parent, spark_master=self.master,
            inputs=self._inputs(day, card, parent),
        )  # fmt: skip
        run_log.write(self.root, summary)
        delete_table(self.checkpoints)
        training_set.prune(self.root, config.keep_sets)
        start = self._span(day).start
        if config.keep_days and is_kept(self.root / "activity", start):
            lake.retire(self.lake, self.card, start - config.keep_days * self.card.day_ms)
        return summary

    def _train(
        self, folder: Place, card: dict, version: str, parent: str | None, day: date
    ) -> tuple[dict[str, float], Verdict]:
        """Train, evaluate, judge and publish; the experiment is logged whatever the verdict."""
        config, clock, cut_ms = self.config, self.clock, card["cut"]
        rows = training_set.on_disk(folder, self.home)
        data = TrainingSet.load(rows, self.card)
        with clock.stage("compare the training set with Feast"):
            check_against_feast(self.store, data, config.model.batch_size)
        initial = self.bundles.load(parent) if parent else None
        choice = self._choose(data, version, initial)
        card = card | {"chosen": {"cut_by": self._why_cut(card["cut_by"])} | chosen(data, config, choice)}
        training_set.write_card(folder, card)
        with clock.stage("train DAT", config.model.epochs) as advance:
            model = fit(
                data, closed_form_choice.with_choice(config.model, choice), cut_ms=cut_ms, initial=initial,
                on_epoch=lambda report: advance(1),
                checkpoint_file=self.checkpoints / f"{version}.pt",
            )  # fmt: skip
        reports, evidence = self._evaluate(model, data, card, rows, initial)
        verdict = judge(model, evidence, config)
        catalogues = train.read_catalogues(self.offline)
        model = train.fold_later(model, rows / "later", catalogues, self.card)
        services = {name: service_fields(self.store, name) for name in ("query_tower", "item_tower")}
        offsets = land_kafka.offsets_at(self.lake, day)
        bundle = train.make_bundle(model, version, self.card, card, offsets, services, reports, parent, choice)
        with clock.stage("log the experiment"):
            asked = config.model_copy(update={"model": model.config})
            mlflow_log.log(self.home, bundle, model.epochs, verdict, card, asked)
        if verdict.verdict == "published":
            with clock.stage("publish the bundle"):
                publish.write_states(bundle, self.offline)
                self.before_publish()
                self.bundles.publish(bundle)
                self.bundles.prune(config.keep_bundles)
                publish.prune_states(self.bundles, self.offline)
        return bundle.manifest.metrics, verdict

    def _choose(self, data: TrainingSet, version: str, initial: Bundle | None) -> ClosedFormChoice | None:
        """What is chosen of the closed form, or was for the bundle that this one starts from and still holds."""
        model = self.config.model
        if not closed_form_choice.is_open(model):
            return None
        earlier = initial.manifest.closed_form if initial else None
        if held := closed_form_choice.taken_over(data, model, earlier):
            return held
        with self.clock.stage("choose the closed form's weight", model.epochs) as advance:
            return closed_form_choice.choose(
                data, model, lambda report: advance(1), self.checkpoints / f"{version}-held-out.pt"
            )

    def _why_cut(self, cut: str) -> str:
        if self.config.cut:
            return f"{cut}: given for the night"
        return f"{cut}: the log has {'no times, only an order' if self.card.clicks.timeless else 'times'}"

    def _evaluate(
        self, model: TrainedModel, data: TrainingSet, card: dict, rows: Path, in_service: Bundle | None
    ) -> tuple[dict, Evidence]:
        """Reports by name, and what the gate decides by."""
        test = train.read_clicks(rows / "test", self.card, self.config.test_clicks)
        # Clicks that were left out of the window have no order after its end in which they could be folded in.
        kinds: tuple[str, ...] = ("static", "live")
        where = "the newest day"
        if card["cut_by"] == "last-out":
            kinds, where = ("static",), "the last-out test"
        if not len(test):
            return {}, Evidence(clicks=where)
        catalogues, live = train.read_catalogues(self.offline), "live" in kinds
        clicks = train.test_clicks(data, test, catalogues, self.card, card["cut"])
        reports, other = {}, in_service and at_cut(in_service, data, catalogues, self.card, card["cut"])
        with self.clock.stage("evaluate on the test clicks", len(test) * (len(kinds) + bool(other))) as advance:
            for kind in kinds:
                reports[kind] = train.evaluate(model, clicks, kind == "live", steps(advance))
            before = None
            if other:
                same = train.clicks_for(other, test, catalogues, self.card)
                before = train.evaluate(other, same, live, steps(advance))
        hr100 = {kind: report.all.hr100 for kind, report in reports.items()}
        return reports, Evidence(
            coverage=card["test_clicks_known_item"] / card["test_clicks"] if card["test_clicks"] else None,
            live=hr100.get("live"), static=hr100["static"], in_service=before and before.all.hr100,
            popularity=train.trailing_popularity(data, clicks, live), clicks=where, test_clicks=len(test),
        )  # fmt: skip
