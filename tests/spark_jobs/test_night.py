"""The nightly job as a whole: what it publishes, and what it refuses."""

import json
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from cli.nightly import run_night
from feature_repo.card import CardError
from feature_repo.store import open_store
from spark_jobs import carry, experiment
from spark_jobs.experiment import tracking_uri
from spark_jobs.gate import judge
from spark_jobs.tables import replace
from tests.spark_jobs.conftest import FinishedNight, Silent, market_settings
from training.bundle import Shelf
from training.fitted import Fitted


def test_a_night_publishes_a_bundle_that_loads_and_covers_every_known_id(finished_night: FinishedNight):
    bundle = Shelf(finished_night.settings.home / "bundles").load()
    assert bundle.version == finished_night.summary.bundle
    assert finished_night.summary.gate.verdict == "published"
    assert np.allclose(np.linalg.norm(bundle.items.vectors, axis=1), 1, atol=1e-4)
    assert bundle.queries.folded.sum() == finished_night.summary.rows
    assert bundle.items.folded.sum() == finished_night.summary.rows


def test_features_read_the_same_through_the_sdk_offline_and_online(finished_night: FinishedNight):
    store = open_store(finished_night.settings.home)
    users = pd.read_csv(finished_night.settings.data / "market" / "users.csv").set_index("user")
    online = store.get_online_features(["query_profile:age", "query_profile:city"], [{"query_id": "u3"}]).to_dict()
    assert online["age"] == [users.age["u3"]] and online["city"] == [users.city["u3"]]
    cut = pd.Timestamp(finished_night.summary.date, tz="UTC")
    stamps = pd.DataFrame({"query_id": ["u3"], "event_timestamp": [cut]})
    offline = store.get_historical_features(stamps, store.get_feature_service("query_tower")).to_df()
    bundle = Shelf(finished_night.settings.home / "bundles").load()
    row = bundle.queries.ids.index("u3")
    assert offline.age[0] == users.age["u3"]
    assert offline.clicks[0] == bundle.queries.clicks[row]
    ring = bundle.queries.history[row]
    assert offline.history[0][-1] == bundle.items.ids[ring[(bundle.queries.clicks[row] - 1) % len(ring)]]
    np.testing.assert_allclose(offline.a[0], bundle.queries.a[row].ravel(), rtol=1e-6)
    assert offline.bundle[0] == bundle.version


def test_the_next_night_starts_from_the_bundle_in_service_and_is_compared_with_it(tmp_path: Path, monkeypatch):
    settings = market_settings(tmp_path, gate_tolerance=0.5, keep_sets=1)
    first = run_night(settings, date(2023, 11, 18), progress=Silent())
    _shops_of_a_new_kind_open(tmp_path / "market" / "shops.csv")
    earlier, find = [], carry.find
    monkeypatch.setattr(carry, "find", lambda *given: earlier.append(find(*given)) or earlier[-1])
    second = run_night(settings, date(2023, 11, 19), log=True, progress=Silent())
    assert earlier[-1] is not None, "the second night goes on from what the first one left"
    sets = settings.home / "training_sets"
    assert json.loads((sets / "2023-11-19" / "card.json").read_text())["new_categories"] == ["garden"]
    assert "garden" in Shelf(settings.home / "bundles").manifest(second.bundle).item.categories[0].values
    _a_night_that_reads_all_clicks_again_writes_the_same(settings, second)
    assert earlier[-1] is None
    shelf = Shelf(settings.home / "bundles")
    assert second.gate.verdict == "published" and "the bundle in service has" in second.gate.reason
    assert shelf.manifest(second.bundle).lineage["parent"] == first.bundle
    assert shelf.versions() == [first.bundle, second.bundle] and shelf.current() == second.bundle
    assert set(shelf.load(first.bundle).items.ids) <= set(shelf.load(second.bundle).items.ids)

    # The first date once more: its record says that it is done, though only the data card of its set was kept, and the
    # service stays with the newer bundle.
    assert sorted(path.parent.name for path in sets.glob("*/train")) == ["2023-11-19"]
    repeated = run_night(settings, date(2023, 11, 18), progress=Silent())
    assert repeated.model_copy(update={"stages": first.stages}) == first
    assert list(repeated.stages) == ["start Spark"] and shelf.current() == second.bundle

    # A gate that asks for the impossible refuses; the next run with it finds the refusal in the record.
    asked = settings.night.model_copy(update={"gate_coverage": 1.0, "window_days": 2})
    impossible = settings.model_copy(update={"night": asked})
    for trained in (True, False):
        refused = run_night(impossible, date(2023, 11, 19), progress=Silent())
        assert refused.gate.verdict == "refused" and "of the newest day's clicks" in refused.gate.reason
        assert ("train DAT" in refused.stages) is trained
    assert refused.bundle not in shelf.versions() and shelf.current() == second.bundle
    assert not (settings.home / "training").exists()
    _the_experiments_are_logged(settings, {first.bundle, second.bundle}, refused.bundle)


def _shops_of_a_new_kind_open(file: Path):
    """Those that open on the second date's last day sell what nobody sold before."""
    shops = pd.read_csv(file)
    opens = pd.to_datetime(shops.opened, unit="ms").dt.date == date(2023, 11, 18)
    assert opens.any()
    shops.loc[opens, "kinds"] = "garden"
    shops.to_csv(file, index=False)


def _a_night_that_reads_all_clicks_again_writes_the_same(settings, night):
    folder = settings.home / "training_sets" / str(night.date)
    parts = ("query_state.parquet", "item_state.parquet", "corpus", "train")
    expected = [pq.read_table(folder / part) for part in parts]
    (settings.home / "offline" / "made.json").unlink()
    (folder / "card.json").unlink()
    assert run_night(settings, night.date, progress=Silent()).training_set_sha256 == night.training_set_sha256
    assert all(pq.read_table(folder / part).equals(of) for part, of in zip(parts, expected, strict=True))


def _the_experiments_are_logged(settings, published: set[str], refused: str):
    """MLflow has one finished run a night, refused ones too, with what went in and what came out."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri(settings.home))
    runs = client.search_runs([client.get_experiment_by_name("market").experiment_id])
    assert {run.data.tags["bundle"]: run.data.tags["verdict"] for run in runs} == {
        refused: "refused",
        **dict.fromkeys(published, "published"),
    }
    shelf = Shelf(settings.home / "bundles")
    for run in runs:
        assert run.info.status == "FINISHED" and run.data.params["model.epochs"] == "2"
        epochs = client.get_metric_history(run.info.run_id, "epoch_loss")
        assert sorted(metric.step for metric in epochs) == [1, 2]
        assert {file.path for file in client.list_artifacts(run.info.run_id)} == {
            "data_card.json", "manifest.json", "verdict.json",
        }  # fmt: skip
        version = run.data.tags["bundle"]
        if version in published:
            manifest = shelf.manifest(version)
            assert run.data.metrics["live_hr100"] == pytest.approx(manifest.metrics["live_hr100"])
            assert run.data.tags["training_set"] == manifest.lineage["training_set"]
            assert run.inputs.dataset_inputs[0].dataset.digest == manifest.lineage["training_set"][:36]
            assert run.data.tags["package"] and json.loads(run.data.tags["kafka_offsets"]) == {}


def test_a_log_of_experiments_that_fails_does_not_fail_the_night(finished_night, fitted, tmp_path, caplog):
    (tmp_path / "mlflow.db").mkdir()
    bundle = Shelf(finished_night.settings.home / "bundles").load()
    experiment.log(tmp_path, bundle, [], finished_night.summary.gate, {}, finished_night.settings.night)
    assert f"the experiment of {bundle.version} was not logged" in caplog.text


@pytest.fixture(scope="module")
def fitted(finished_night: FinishedNight) -> Fitted:
    return Fitted.of(Shelf(finished_night.settings.home / "bundles").load())


def test_the_gate_lets_pass_what_is_as_good_as_the_bundle_in_service(fitted, finished_night):
    assert judge(fitted, 0.9, 0.40, 0.41, finished_night.settings.night).verdict == "published"


def test_the_gate_refuses_what_is_worse_than_the_bundle_in_service_and_says_by_how_much(fitted, finished_night):
    verdict = judge(fitted, 0.9, 0.30, 0.41, finished_night.settings.night)
    assert verdict.verdict == "refused" and "0.300" in verdict.reason and "0.410" in verdict.reason


def test_the_gate_refuses_vectors_that_are_not_finite(fitted, finished_night):
    fitted.items.vectors[0, 0] = np.nan
    try:
        verdict = judge(fitted, 0.9, 0.5, None, finished_night.settings.night)
    finally:
        fitted.items.vectors[0, 0] = 0
    assert verdict.verdict == "refused" and "not finite" in verdict.reason


def test_the_gate_refuses_a_bundle_that_does_not_know_the_day_s_items(fitted, finished_night):
    assert judge(fitted, 0.1, 0.5, None, finished_night.settings.night).verdict == "refused"


def test_a_table_whose_writer_fails_leaves_the_previous_one(tmp_path: Path):
    final = tmp_path / "table"

    def whole(folder: Path) -> None:
        folder.mkdir()
        (folder / "part").write_text("old")

    def broken(folder: Path) -> None:
        folder.mkdir()
        (folder / "part").write_text("ne")
        raise OSError("the disk went away")

    replace(final, whole)
    with pytest.raises(OSError, match="went away"):
        replace(final, broken)
    assert (final / "part").read_text() == "old"
    replace(final, whole)
    assert [path.name for path in tmp_path.iterdir()] == ["table"]


def test_a_log_that_lacks_a_column_is_refused_in_one_sentence_that_names_it(tmp_path: Path):
    settings = market_settings(tmp_path)
    clicks = tmp_path / "market" / "clicks.csv"
    clicks.write_text(clicks.read_text().replace("shop", "store", 1))
    with pytest.raises(CardError, match=r"clicks\.csv lacks the column shop; it has: user, store, at"):
        run_night(settings, progress=Silent())
    assert Shelf(settings.home / "bundles").current() is None
