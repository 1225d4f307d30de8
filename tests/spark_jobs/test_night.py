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
from model.bundle_store import BundleStore
from spark_jobs import mlflow_log as experiment
from spark_jobs.mlflow_log import tracking_uri
from tests.spark_jobs.conftest import FinishedNight, Silent, market_settings

CHOICE = "choose the closed form's weight"


def test_a_night_publishes_a_bundle_that_loads_and_covers_every_known_id(finished_night: FinishedNight):
    bundle = BundleStore(finished_night.settings.home / "bundles").load()
    assert bundle.version == finished_night.summary.bundle
    assert finished_night.summary.gate.verdict == "published"
    taste = bundle.items.vectors[:, : bundle.manifest.config.signal_dim]
    assert np.allclose(np.linalg.norm(taste, axis=1), 1, atol=1e-4)
    # What the log has from after the window is in the state, too: no stream will deliver it.
    later = pq.read_table(finished_night.folder / "later").num_rows
    assert later > 0
    for state in (bundle.queries, bundle.items):
        assert state.update_count.sum() == finished_night.summary.rows + later


def test_what_was_chosen_and_why_stands_in_the_data_card_and_in_the_manifest(finished_night: FinishedNight):
    manifest = BundleStore(finished_night.settings.home / "bundles").load().manifest
    card = json.loads((finished_night.folder / "card.json").read_text())
    assert card["chosen"] == manifest.chosen
    assert manifest.chosen["cut_by"] == "day: the log has times"
    assert manifest.closed_form is not None and manifest.config.closed_form.weight == manifest.closed_form.weight
    assert manifest.chosen["closed_form.weight"] == f"{manifest.closed_form.weight:g}: {manifest.closed_form.why}"
    assert manifest.chosen["excludes_seen"].startswith("yes: " if manifest.excludes_seen else "no: ")
    assert "of the window's clicks repeat" in manifest.chosen["excludes_seen"]
    assert manifest.chosen["epochs"] == f"{manifest.config.epochs}: given for the night"


def test_features_read_the_same_through_the_sdk_offline_and_online(finished_night: FinishedNight):
    store = open_store(finished_night.settings.home)
    users = pd.read_csv(finished_night.settings.data / "market" / "users.csv").set_index("user")
    online = store.get_online_features(["query_profile:age", "query_profile:city"], [{"query_id": "u3"}]).to_dict()
    assert online["age"] == [users.age["u3"]] and online["city"] == [users.city["u3"]]
    bundle = BundleStore(finished_night.settings.home / "bundles").load()
    row = bundle.queries.ids.index("u3")
    moment = int(bundle.queries.as_of[row])
    assert moment > bundle.manifest.cut_ms, "the state holds clicks from after the cut"
    stamps = pd.to_datetime([bundle.manifest.cut_ms, moment], unit="ms", utc=True)
    asked = pd.DataFrame({"query_id": ["u3"] * 2, "event_timestamp": stamps})
    found = store.get_historical_features(asked, store.get_feature_service("query_tower")).to_df()
    cut, last = (found.sort_values("event_timestamp").iloc[n] for n in range(2))
    clicks = pd.read_csv(finished_night.settings.data / "market" / "clicks.csv").drop_duplicates()
    assert cut.age == users.age["u3"]
    assert cut.clicks == ((clicks.user == "u3") & (clicks["at"] < bundle.manifest.cut_ms)).sum()
    assert pd.isna(cut.bundle), "at the cut nobody could know the state"
    ring = bundle.queries.recent_items[row]
    assert last.history[-1] == bundle.items.ids[ring[(bundle.queries.clicks[row] - 1) % len(ring)]]
    np.testing.assert_allclose(last.a, bundle.queries.a[row].ravel(), rtol=1e-6)
    assert last.bundle == bundle.version


@pytest.mark.slow
@pytest.mark.usefixtures("spark")
def test_the_next_night_starts_from_the_bundle_in_service_and_is_compared_with_it(tmp_path: Path):
    settings = market_settings(tmp_path, gate_tolerance=0.5, keep_sets=1)
    first = run_night(settings, date(2023, 11, 18), progress=Silent())
    shops = (tmp_path / "market" / "shops.csv").read_bytes()
    _shops_of_a_new_kind_open(tmp_path / "market" / "shops.csv")
    second = run_night(settings, date(2023, 11, 19), log=True, progress=Silent())
    sets = settings.home / "training_sets"
    assert json.loads((sets / "2023-11-19" / "card.json").read_text())["new_categories"] == ["garden"]
    assert "garden" in BundleStore(settings.home / "bundles").manifest(second.bundle).item.categories[0].values
    _a_night_that_counts_all_clicks_again_writes_the_same(settings, second)
    store = BundleStore(settings.home / "bundles")
    assert second.gate.verdict == "published" and "the bundle in service has" in second.gate.reason
    assert store.manifest(second.bundle).lineage["parent"] == first.bundle
    assert store.versions() == [first.bundle, second.bundle] and store.current() == second.bundle
    one, two = (store.manifest(night.bundle) for night in (first, second))
    assert one.closed_form == two.closed_form is not None and one.config == two.config
    assert [CHOICE in night.stages for night in (first, second)] == [True, False], "the second takes it over"
    assert set(store.load(first.bundle).items.ids) <= set(store.load(second.bundle).items.ids)

    # The first date once more, with the catalogue of then: its record says that it is done, though only the data card
    # of its set was kept, and the service stays with the newer bundle.
    assert sorted(path.parent.name for path in sets.glob("*/clicks")) == ["2023-11-19"]
    (tmp_path / "market" / "shops.csv").write_bytes(shops)
    repeated = run_night(settings, date(2023, 11, 18), progress=Silent())
    assert repeated.model_copy(update={"stages": first.stages}) == first
    assert list(repeated.stages) == ["start Spark", "land what is new in the log"]
    assert store.current() == second.bundle

    # A gate that asks for the impossible refuses; the next run with it finds the refusal in the record.
    asked = settings.night.model_copy(update={"gate_coverage": 1.0, "window_days": 2})
    impossible = settings.model_copy(update={"night": asked})
    for trained in (True, False):
        refused = run_night(impossible, date(2023, 11, 19), progress=Silent())
        assert refused.gate.verdict == "refused" and "of the newest day" in refused.gate.reason
        assert ("train DAT" in refused.stages) is trained
    assert refused.bundle not in store.versions() and store.current() == second.bundle
    assert not (settings.home / "training").exists()
    _the_experiments_are_logged(settings, {first.bundle, second.bundle}, refused.bundle)


def _shops_of_a_new_kind_open(file: Path):
    """Those that open on the second date's last day sell what nobody sold before."""
    shops = pd.read_csv(file)
    opens = pd.to_datetime(shops.opened, unit="ms").dt.date == date(2023, 11, 18)
    assert opens.any()
    shops.loc[opens, "kinds"] = "garden"
    shops.to_csv(file, index=False)


def _a_night_that_counts_all_clicks_again_writes_the_same(settings, night):
    """Without the snapshots of earlier nights; and its bundle, being the same, is not trained again."""
    folder = settings.home / "training_sets" / str(night.date)
    expected = [pq.read_table(folder / part) for part in ("clicks", "queries", "items")]
    marks = list((settings.home / "activity").glob("*/made.json"))
    assert len(marks) == 2
    for file in (*marks, folder / "card.json"):
        file.unlink()
    again = run_night(settings, night.date, progress=Silent())
    assert again.training_set_sha256 == night.training_set_sha256 and "train DAT" not in again.stages
    assert all(
        pq.read_table(folder / part).equals(of)
        for part, of in zip(("clicks", "queries", "items"), expected, strict=True)
    )


def _the_experiments_are_logged(settings, published: set[str], refused: str):
    """MLflow has one finished run a night, refused ones too, with what went in and what came out."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri(settings.home))
    runs = client.search_runs([client.get_experiment_by_name("market").experiment_id])
    assert {run.data.tags["bundle"]: run.data.tags["verdict"] for run in runs} == {
        refused: "refused",
        **dict.fromkeys(published, "published"),
    }
    versions = client.search_model_versions("name = 'dat-market'")
    assert {version.tags["bundle"] for version in versions} == published
    store = BundleStore(settings.home / "bundles")
    for run in runs:
        assert run.info.status == "FINISHED" and run.data.params["model.epochs"] == "2"
        epochs = client.get_metric_history(run.info.run_id, "epoch_loss")
        assert sorted(metric.step for metric in epochs) == [1, 2]
        assert {file.path for file in client.list_artifacts(run.info.run_id)} == {
            "data_card.json", "manifest.json", "verdict.json",
        }  # fmt: skip
        version = run.data.tags["bundle"]
        if version in published:
            manifest = store.manifest(version)
            assert run.data.metrics["live_hr100"] == pytest.approx(manifest.metrics["live_hr100"])
            assert run.data.tags["training_set"] == manifest.lineage["training_set"]
            assert run.inputs.dataset_inputs[0].dataset.digest == manifest.lineage["training_set"][:36]
            assert run.data.tags["package"] and json.loads(run.data.tags["kafka_offsets"]) == {}


def test_a_log_of_experiments_that_fails_does_not_fail_the_night(finished_night, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("mlflow.store.db.utils.MAX_RETRY_COUNT", 1)  # it tries for a minute and a half
    (tmp_path / "mlflow.db").mkdir()
    bundle = BundleStore(finished_night.settings.home / "bundles").load()
    experiment.log(tmp_path, bundle, [], finished_night.summary.gate, {}, finished_night.settings.night)
    assert f"the experiment of {bundle.version} was not logged" in caplog.text


@pytest.mark.usefixtures("spark")
def test_a_log_that_lacks_a_column_is_refused_in_one_sentence_that_names_it(tmp_path: Path):
    settings = market_settings(tmp_path)
    clicks = tmp_path / "market" / "clicks.csv"
    clicks.write_text(clicks.read_text().replace("shop", "store", 1))
    with pytest.raises(CardError, match=r"clicks\.csv lacks the column shop .* it has: user, store, at"):
        run_night(settings, progress=Silent())
    assert BundleStore(settings.home / "bundles").current() is None
