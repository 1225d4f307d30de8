"""Inputs that are not what they should be: each ends in a clear refusal, with the bundle in service untouched."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from cli.nightly import run_night
from cli.settings import Settings
from feature_repo.card import CardError
from spark_jobs import validate
from spark_jobs.config import NightConfig, Rules
from spark_jobs.data_card import gini, stability_index
from spark_jobs.days import Window
from spark_jobs.lake import LakeError
from spark_jobs.training_set import data_card, has_rows, prune
from spark_jobs.validate import BadNight
from tests.spark_jobs.conftest import FinishedNight, Silent
from training.bundle import Shelf
from training.shares import CategoryShares

DAY = 86_400_000


@pytest.fixture
def night(finished_night: FinishedNight, tmp_path: Path) -> Settings:
    """A copy of a system that has a bundle in service, to run a bad night on."""
    old = finished_night.settings
    shutil.copytree(old.home, tmp_path / "home", symlinks=True, ignore=shutil.ignore_patterns("spark", "nightly.lock"))
    shutil.copytree(old.data / "market", tmp_path / "market")
    return old.model_copy(update={"home": tmp_path / "home", "data": tmp_path})


def _log(settings: Settings) -> tuple[Path, pd.DataFrame]:
    file = settings.data / "market" / "clicks.csv"
    return file, pd.read_csv(file)


def _refused(settings: Settings, error: type[Exception], match: str, **options) -> None:
    """The night must end in that error, and leave what is in service as it was."""
    shelf = Shelf(settings.home / "bundles")
    before = shelf.current(), shelf.versions()
    with pytest.raises(error, match=match):
        run_night(settings, progress=Silent(), **options)
    assert (shelf.current(), shelf.versions()) == before and before[0] is not None


def test_a_day_without_clicks_is_refused_by_its_date(night):
    file, clicks = _log(night)
    gone = clicks["at"].between(1_700_006_400_000 + 2 * DAY, 1_700_006_400_000 + 3 * DAY - 1)
    clicks[~gone].to_csv(file, index=False)
    _refused(night, BadNight, r"a day has at least 5% .* 1 rows break it, such as .*2023-11-17", again=True)


def test_a_day_whose_clicks_are_all_on_one_item_is_refused(night):
    file, clicks = _log(night)
    clicks["shop"] = "s0"
    clicks.to_csv(file, index=False)
    _refused(night, BadNight, r"no item has more than 50% of a day's clicks. 3 rows break it", again=True)


def test_a_log_with_many_unreadable_times_is_refused_with_examples(night):
    file, clicks = _log(night)
    clicks["at"] = clicks["at"].astype(object)
    clicks.loc[::10, "at"] = "yesterday"
    clicks.to_csv(file, index=False)
    _refused(night, BadNight, r"all but 1.0% of a log's clicks .* such as .*;.*;", again=True)


def test_a_catalogue_of_other_ids_is_refused(night):
    file = night.data / "market" / "shops.csv"
    shops = pd.read_csv(file)
    shops["shop"] = "x" + shops.shop
    shops.to_csv(file, index=False)
    _refused(night, BadNight, r"at least 50% of the clicks are on items that shops.csv has", again=True)


def test_a_truncated_file_in_the_lake_is_refused_by_its_name(night):
    file = next((night.home / "lake" / "clicks").glob("landing=*/date=*/*.parquet"))
    file.write_bytes(file.read_bytes()[:-100])
    _refused(night, LakeError, f"{file.name} is damaged")


def test_a_renamed_column_of_the_catalogue_is_refused_by_its_name(night):
    file = night.data / "market" / "shops.csv"
    file.write_text(file.read_text().replace("kinds", "sorts", 1))
    _refused(night, CardError, r"shops\.csv lacks the column kinds", again=True)


def _write(folder: Path, columns: dict) -> None:
    folder.mkdir(parents=True)
    pq.write_table(pa.table(columns), folder / "part.parquet")


ROWS = {
    "event_time": [100, 200, 300],
    "candidates": [["a", "b"], ["a", "b"], ["b", "a"]],
    "query__last_click": [None, 150, 250],
    "item__last_click": [[None, 50], [150, None], [299, 299]],
}


@pytest.mark.parametrize(
    ("column", "values", "rule"),
    [
        ("event_time", [100, 200, 999], "lies in the window"),
        ("candidates", [["a", "a"], ["a", "b"], ["b", "a"]], "the clicked item and 1 others"),
        ("candidates", [["a", "b"], ["a"], ["b", "a"]], "the clicked item and 1 others"),
        ("query__last_click", [None, 200, 250], "the query's activity is from before"),
        ("item__last_click", [[None, 50], [150, 201], [299, 299]], "the items' activity is from before"),
    ],
)
def test_training_rows_that_know_the_future_or_are_incomplete_are_refused(tmp_path, column, values, rule):
    window = Window(100, 400, 500)
    _write(tmp_path / "good" / "date=1", ROWS)
    validate.check_set(tmp_path / "good", window, 1)
    _write(tmp_path / "bad" / "date=1", ROWS | {column: values})
    with pytest.raises(BadNight, match=f"{rule}.* 1 rows break it, such as"):
        validate.check_set(tmp_path / "bad", window, 1)


def test_a_table_without_rows_breaks_no_rule_of_its_rows(tmp_path):
    pq.write_table(pa.table({"id": pa.array([], pa.string())}), tmp_path / "part.parquet")
    validate.check_rows("rows", str(tmp_path / "*.parquet"), {"a row has an id": lambda t: t.id.notnull()})
    pq.write_table(pa.table({"id": pa.array([None], pa.string())}), tmp_path / "part.parquet")
    with pytest.raises(BadNight, match="1 rows break it"):
        validate.check_rows("rows", str(tmp_path / "*.parquet"), {"a row has an id": lambda t: t.id != "x"})


def test_the_examples_are_three_however_many_rows_break_a_rule(tmp_path):
    _write(tmp_path / "date=1", {name: values * 50 for name, values in ROWS.items()})
    with pytest.raises(BadNight) as refused:
        validate.check_set(tmp_path, Window(0, 10, 20), 1)
    assert "150 rows break it" in str(refused.value) and str(refused.value).count("'event_time'") == 3


@pytest.mark.parametrize("counter", [np.nan, np.inf, -1.0])
def test_counters_that_are_not_finite_are_refused(finished_night, tmp_path, counter):
    offline = finished_night.settings.home / "offline"
    shares = CategoryShares(**data_card(finished_night.folder)["shares"])
    validate.check_features(offline, finished_night.card, shares)
    shutil.copytree(offline, tmp_path / "offline")
    file = next((tmp_path / "offline" / "item_activity" / "part=all").glob("*.parquet"))
    rows = pq.read_table(file)
    counters = rows["counters"].to_pylist()
    counters[0][1] = counter
    changed = pa.array(counters, rows.schema.field("counters").type)
    pq.write_table(rows.set_column(rows.schema.get_field_index("counters"), "counters", changed), file)
    with pytest.raises(BadNight, match="item activity features .* 3 counters, finite and not negative. 1 rows"):
        validate.check_features(tmp_path / "offline", finished_night.card, shares)


def test_of_old_sets_the_data_cards_stay(finished_night, tmp_path):
    for day in ("2023-11-16", "2023-11-17", "2023-11-18"):
        shutil.copytree(finished_night.folder, tmp_path / "training_sets" / day)
    prune(tmp_path, keep=2)
    sets = list((tmp_path / "training_sets").iterdir())
    assert {path.name for path in sets if has_rows(path)} == {"2023-11-17", "2023-11-18"}
    assert [path.name for path in (tmp_path / "training_sets" / "2023-11-16").iterdir()] == ["card.json"]


def test_a_set_whose_categories_have_moved_too_far_is_refused(finished_night):
    moved = {"rows": 10, "category_drift": 3.0}
    with pytest.raises(BadNight, match=r"within 2.0 \(stability index\)"):
        validate.check_card(moved, finished_night.card, Rules())
    validate.check_card(moved, finished_night.card, Rules(max_drift=5))


def test_gini_and_stability_index_by_hand():
    assert gini(np.array([5, 5, 5])) == pytest.approx(0)
    assert gini(np.array([0, 0, 9])) == pytest.approx(2 / 3)
    assert stability_index({"a": 9, "b": 9}, {"a": 9, "b": 9}) == 0
    p, q = 0.25, 0.75  # 1 + 1 and 5 + 1 of 8
    assert stability_index({"a": 1, "b": 5}, {"a": 5, "b": 1}) == pytest.approx(2 * (q - p) * np.log(q / p))


def test_thresholds_are_settings_and_a_wrong_one_is_refused():
    assert NightConfig.model_validate({"rules": {"min_day": 0}}).rules.min_day == 0
    with pytest.raises(ValidationError):
        NightConfig.model_validate({"rules": {"min_days": 0}})
