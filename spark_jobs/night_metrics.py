"""What the night tells Prometheus. A job that ends cannot be scraped: its figures go into a file for node_exporter's
textfile collector, or to a Pushgateway.
"""

import json
from importlib.metadata import version
from pathlib import Path

from prometheus_client import CollectorRegistry, Gauge, push_to_gateway, write_to_textfile

from model.bundle_store import BundleStore
from model.settings.night import NightConfig
from spark_jobs.run_log import NightSummary

JOB = "dat-night"
VERDICTS = ("published", "refused", "failed")


class NightMetrics:
    """The figures, in a registry of their own.

    Args:
        home: Where the records of earlier nights are.
        summaries: The nights of this run, oldest first; none: it failed before the first ended.
        failed: Whether it ended with an error.
    """

    def __init__(self, home: Path, summaries: list[NightSummary], failed: bool = False):
        self.registry = CollectorRegistry()
        last = summaries[-1] if summaries else None
        verdict = "failed" if failed or last is None else last.gate.verdict
        gauge = self._gauge("dat_night_verdict", "1 for what became of the last night", ["verdict"])
        for name in VERDICTS:
            gauge.labels(name).set(name == verdict)
        self._gauge("dat_night_last_success_timestamp_seconds", "When a night last published a bundle").set(
            _last_success(home)
        )
        self._gauge("dat_build_info", "1 for the version that runs", ["version"]).labels(version("dat-retrieval")).set(
            1
        )
        stage = self._gauge("dat_night_stage_seconds", "What each stage of the last night took", ["stage"])
        rate = self._gauge("dat_night_hr100", "HR@100 of the last night's model on its test clicks", ["mode"])
        rows = self._gauge("dat_night_training_clicks", "Clicks that the last night trained on")
        if last:
            rows.set(last.rows)
            for name, seconds in last.stages.items():
                stage.labels(name).set(seconds)
            for mode in ("static", "live"):
                if f"{mode}_hr100" in last.metrics:
                    rate.labels(mode).set(last.metrics[f"{mode}_hr100"])
        if served := _newest(home / "served"):
            self._gauge("dat_served_hr100", "HR@100 of what was served, on the last day that has been judged").set(
                json.loads(served.read_text())["hr100"]
            )

    def tell(self, config: NightConfig) -> None:
        """Put them where the settings say.

        Raises:
            OSError: the file cannot be written, or the Pushgateway does not answer.
        """
        if config.metrics_file:
            write_to_textfile(str(config.metrics_file), self.registry)
        if config.pushgateway:
            push_to_gateway(config.pushgateway, JOB, self.registry)

    def _gauge(self, name: str, text: str, labels: list[str] | None = None) -> Gauge:
        return Gauge(name, text, labels or (), registry=self.registry)


def _last_success(home: Path) -> float:
    """When the newest bundle was published (0: never), which outlives the records of nights."""
    store = BundleStore(home / "bundles")
    manifests = [store.folder / name / "manifest.json" for name in store.versions()]
    return max((manifest.stat().st_mtime for manifest in manifests), default=0.0)


def _newest(folder: Path) -> Path | None:
    return max(folder.glob("*.json"), default=None)
