"""The night's figures as Prometheus reads them."""

from datetime import date
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from model.bundle_store import BundleStore
from model.settings.night import NightConfig
from spark_jobs.gate import Verdict
from spark_jobs.night_metrics import NightMetrics
from spark_jobs.run_log import NightSummary
from tests.tiny import tiny_bundle


def samples(file: Path) -> dict[tuple, float]:
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(file.read_text())
        for sample in family.samples
    }


def summary(verdict: str) -> NightSummary:
    return NightSummary(
        date=date(2026, 1, 2), training_set_sha256="", rows=1234, days=10, stages={"train DAT": 5.5}, bundle="one",
        gate=Verdict(verdict=verdict, reason=""), metrics={"static_hr100": 0.25, "live_hr100": 0.5}, parent=None,
        inputs="",
    )  # fmt: skip


def test_a_published_night_a_refused_one_and_one_that_failed(tmp_path: Path):
    config = NightConfig(metrics_file=tmp_path / "dat.prom")
    NightMetrics(tmp_path, [], failed=True).tell(config)
    told = samples(tmp_path / "dat.prom")
    assert told["dat_night_verdict", "failed"] == 1 and told["dat_night_last_success_timestamp_seconds",] == 0

    published = BundleStore(tmp_path / "bundles").publish(tiny_bundle("one"))
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "2026-01-02.json").write_text('{"hr100": 0.75}')
    NightMetrics(tmp_path, [summary("published")]).tell(config)
    told = samples(tmp_path / "dat.prom")
    assert told["dat_night_verdict", "published"] == 1 and told["dat_night_verdict", "refused"] == 0
    assert told["dat_night_last_success_timestamp_seconds",] == (published / "manifest.json").stat().st_mtime
    assert (told["dat_night_hr100", "live"], told["dat_served_hr100",]) == (0.5, 0.75)
    assert told["dat_night_stage_seconds", "train DAT"] == 5.5 and told["dat_night_training_clicks",] == 1234

    NightMetrics(tmp_path, [summary("refused")]).tell(config)
    assert samples(tmp_path / "dat.prom")["dat_night_verdict", "refused"] == 1
