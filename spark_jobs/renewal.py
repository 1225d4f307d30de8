"""The second half of a night: from a finished training set to a bundle in service, or to a refusal and its reason.

Every step may be cut short and run again: training goes on from its checkpoint, what is written is written whole, and
the night's record comes last.
"""

import shutil
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from feast import FeatureStore

from feature_repo.card import DatasetCard
from feature_repo.store import service_fields
from spark_jobs import experiment, publish, records, retrain, training_set
from spark_jobs.config import NightConfig
from spark_jobs.distributed import train_together
from spark_jobs.gate import Verdict, judge
from spark_jobs.progress import Clock, steps
from spark_jobs.records import NightSummary
from spark_jobs.session import spark_session
from training.bundle import Bundle, Shelf
from training.fitted import Fitted


@dataclass
class Renewal:
    """What retraining needs of a night."""

    home: Path
    card: DatasetCard
    store: FeatureStore
    config: NightConfig
    clock: Clock

    @property
    def shelf(self) -> Shelf:
        return Shelf(self.home / "bundles")

    def finished(self, day: date, found: dict) -> NightSummary | None:
        """What the night's record says, if it is of this training set (by its data card) and of these settings."""
        record = records.read(self.home, day)
        if record is None or record.asked != self._asked(day, found, record.parent):
            return None
        return record.model_copy(update={"stages": self.clock.seconds})

    def run(self, day: date, folder: Path, offsets: dict[int, int], again: bool = False) -> NightSummary:
        """Train, judge, publish, load the catalogues online; or find in the night's record that this was done.

        Args:
            folder: The finished training set.
            offsets: The cut in Kafka, for the bundle's manifest.
            again: Do it in spite of the record. A bundle that is on the shelf stays: the same inputs make the same one.
        """
        found, shelf = training_set.data_card(folder), self.shelf
        if not again and (record := self.finished(day, found)):
            return record
        record = records.read(self.home, day)
        parent = self.parent(found)
        version = retrain.version_of(day.isoformat(), found, self.config, parent)
        if version in shelf.versions():  # made again, or an earlier run ended between publishing and its record
            earlier = Verdict(verdict="published", reason="published by an earlier run of the same night")
            verdict = record.gate if record and record.bundle == version else earlier
            metrics = shelf.manifest(version).metrics
            shelf.put_into_service(version)
        else:
            bundle, verdict = self._train(folder, found, version, parent, offsets)
            metrics = bundle.manifest.metrics
            if verdict.verdict == "published":
                with self.clock.stage("publish the bundle"):
                    publish.write_states(bundle, self.home / "offline")
                    shelf.publish(bundle)
                    shelf.prune(self.config.keep_bundles)
        with self.clock.stage("load the catalogues online"):
            publish.load_profiles(self.store, self.home / "offline", self.home / "loaded", again)
        summary = NightSummary(
            date=day, training_set_sha256=found["sha256"], rows=found["rows"], stages=self.clock.seconds,
            bundle=version, gate=verdict, metrics=metrics, parent=parent, asked=self._asked(day, found, parent),
        )  # fmt: skip
        records.write(self.home, summary)
        shutil.rmtree(self.home / "training", ignore_errors=True)
        training_set.prune(self.home, self.config.keep_sets)
        return summary

    def parent(self, found: dict) -> str | None:
        """The bundle to start from, for a training set by its data card: if that holds clicks out, one that held them
        out too. What was tried on a later day has learnt from them."""
        parent = self.shelf.ancestor(found["cut"])
        held_out = parent and self.shelf.manifest(parent).lineage.get("cut_by") == "last-out"
        return parent if held_out or found["cut_by"] == "day" else None

    def _asked(self, day: date, found: dict, parent: str | None) -> str:
        """What a record must agree with: the version, which covers data, model and parent, and the gate's demands."""
        version = retrain.version_of(day.isoformat(), found, self.config, parent)
        config = self.config
        return f"{version} {config.gate_tolerance} {config.gate_coverage} {config.test_clicks}"

    def _train(
        self, folder: Path, found: dict, version: str, parent: str | None, offsets: dict[int, int]
    ) -> tuple[Bundle, Verdict]:
        """A trained, measured and judged bundle. Its experiment is logged, whatever the verdict."""
        config, clock, cut = self.config, self.clock, found["cut"]
        file = self.home / "training" / f"{version}.pt"
        if config.processes > 1:
            with (
                clock.stage(f"train DAT in {config.processes} processes"),
                spark_session(config, self.home / "spark") as spark,
            ):
                start = self.shelf.folder / parent if parent else None
                train_together(spark, config.processes, folder, self.card, config.model, start, file)
        start_from = self.shelf.load(parent) if parent else None
        with clock.stage("train DAT", config.model.epochs) as advance:
            fitted = retrain.train(folder, self.card, config, start_from, cut, lambda report: advance(1), file)
        test = retrain.read_test(folder).slice(0, config.test_clicks)
        # Clicks that were held out of the window have no order after its end in which to be folded in.
        asked, tried_on = ("static", "live"), "the newest day"
        if found["cut_by"] == "last-out":
            asked, tried_on = ("static",), "the last-out test"
        reports, in_service = {}, None
        if len(test):
            catalogues = retrain.read_catalogues(self.home / "offline")
            with clock.stage("evaluate on the test clicks", len(test) * (len(asked) + bool(parent))) as advance:
                for name in asked:
                    reports[name] = retrain.test_report(
                        fitted, test, catalogues, self.card, cut, name == "live", steps(advance)
                    )
                if start_from is not None:
                    in_service = retrain.test_report(
                        Fitted.of(start_from), test, catalogues, self.card, cut, name == "live", steps(advance)
                    )
        coverage = found["test_clicks_known_item"] / found["test_clicks"] if found["test_clicks"] else None
        hr100 = reports[asked[-1]].all.hr100 if reports else None
        verdict = judge(fitted, coverage, hr100, in_service.all.hr100 if in_service else None, config, tried_on)
        services = {name: service_fields(self.store, name) for name in ("query_tower", "item_tower")}
        bundle = retrain.make_bundle(fitted, version, self.card, found, offsets, services, reports, parent)
        with clock.stage("log the experiment"):
            experiment.log(self.home, bundle, fitted.history, verdict, found, config)
        return bundle, verdict
