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
from feature_repo.card import DatasetCard, load_card
from model.bundle_store import BundleStore
from model.settings.night import NightConfig, Rules
from model.settings.settings import load_settings
from model.windows import Window
from spark_jobs import validate
from spark_jobs.data_card import gini, stability_index
from spark_jobs.nightly import NightError
from spark_jobs.training_set import PARTS, has_rows, prune, write_card
from spark_jobs.validate import BadNight
from tests.market import FIRST_MS, write_market
from tests.spark_jobs.conftest import FinishedNight, Silent

DAY = 86_400_000
WINDOW = Window(FIRST_MS, FIRST_MS + 3 * DAY, FIRST_MS + 4 * DAY)


def test_a_night_that_is_refused_leaves_the_bundle_in_service(finished_night: FinishedNight, tmp_path: Path):
    """By a day without clicks, which the message names."""
    old = finished_night.settings
    shutil.copytree(old.home, tmp_path / "home", symlinks=True, ignore=shutil.ignore_patterns("spark", "nightly.lock"))
    shutil.copytree(old.data / "market", tmp_path / "market")
    shutil.copy(old.dataset, card := tmp_path / "market.toml")
    clicks = pd.read_csv(tmp_path / "market" / "clicks.csv")
    gone = clicks["at"].between(FIRST_MS + 2 * DAY, FIRST_MS + 3 * DAY - 1)
    clicks[~gone].to_csv(tmp_path / "market" / "clicks.csv", index=False)
    settings = old.model_copy(update={"home": tmp_path / "home", "data": tmp_path, "dataset": str(card)})
    store = BundleStore(settings.home / "bundles")
    before = store.current(), store.versions()
    with pytest.raises(BadNight, match=r"a day has at least 5% .* 1 rows fail, such as .*2023-11-17"):
        run_night(settings, progress=Silent(), again=True)
    assert (store.current(), store.versions()) == before and before[0] is not None


@pytest.fixture
def card(tmp_path: Path) -> DatasetCard:
    return load_card(write_market(tmp_path, clicks=20))


def clicks_of(spark, items: list[list[str]]):
    """A few clicks a day of the window, on the named items."""
    rows = [(item, FIRST_MS + day * DAY + n) for day, names in enumerate(items) for n, item in enumerate(names)]
    return spark.createDataFrame(rows, "item_id string, event_time long")


def test_days_that_are_missing_or_of_one_item_alone_are_refused(spark, card):
    two = ["s0", "s1"]
    validate.check_days(clicks_of(spark, [two, two, two]), WINDOW, card, Rules())
    validate.check_days(clicks_of(spark, [[], two, two]), WINDOW, card, Rules())  # a log that begins on the second day
    with pytest.raises(BadNight, match=r"at least 5% of the clicks of the window's mean day.* 1 rows fail.*2023-11-16"):
        validate.check_days(clicks_of(spark, [two, [], two]), WINDOW, card, Rules())
    with pytest.raises(BadNight, match=r"no item has more than 50% of a day's clicks. 2 rows fail"):
        validate.check_days(clicks_of(spark, [two, ["s0"], ["s0"]]), WINDOW, card, Rules())


def test_a_catalogue_of_other_ids_is_refused(spark, card):
    clicks = clicks_of(spark, [["s0", "s1"], ["s2", "s3"]])
    half, quarter = (spark.createDataFrame([(n,) for n in names], "item_id string") for names in (["s0", "s1"], ["s0"]))
    validate.check_known(clicks, half, card, Rules())
    with pytest.raises(BadNight, match=r"at least 50% of the clicks are on items that shops.csv has. 3 rows fail"):
        validate.check_known(clicks, quarter, card, Rules())


def _write(folder: Path, columns: dict) -> None:
    folder.mkdir(parents=True)
    pq.write_table(pa.table(columns), folder / "part.parquet")


CLICKS = {"event_time": [100, 200, 300], "query": [0, 0, 1], "item": [1, 0, 1], "negatives": [[0, 2], [2, 2], [1, 0]]}
ITEMS = {"id": ["a", "b", "c"], "since": [10, 99, 150]}


@pytest.mark.parametrize(
    ("name", "column", "values", "rule"),
    [
        ("clicks", "event_time", [100, 200, 999], "lies in the window"),
        ("clicks", "query", [0, None, 1], "a query and an item of the set"),
        ("clicks", "item", [1, -1, 1], "a query and an item of the set"),
        ("clicks", "negatives", [[0, 2], [2], [1, 0]], "has 2 negatives"),
        ("items", "since", [10, 99, 400], "exists before the cut"),
    ],
)
def test_a_training_set_that_knows_the_future_or_is_incomplete_is_refused(tmp_path, name, column, values, rule):
    window, tables = Window(100, 400, 500), {"clicks": CLICKS, "items": ITEMS}
    for kind, changed in (("good", {}), ("bad", {name: tables[name] | {column: values}})):
        for table, columns in (tables | changed).items():
            _write(tmp_path / kind / table, columns)
    validate.check_set(tmp_path / "good", window, 2)
    with pytest.raises(BadNight, match=f"{rule}.* 1 rows fail, such as"):
        validate.check_set(tmp_path / "bad", window, 2)


def test_a_table_without_rows_breaks_no_rule_of_its_rows(tmp_path):
    pq.write_table(pa.table({"id": pa.array([], pa.string())}), tmp_path / "part.parquet")
    validate.check_rows("rows", tmp_path.glob("*.parquet"), {"a row has an id": lambda t: t.id.notnull()})
    pq.write_table(pa.table({"id": pa.array([None], pa.string())}), tmp_path / "part.parquet")
    with pytest.raises(BadNight, match="1 rows fail"):
        validate.check_rows("rows", tmp_path.glob("*.parquet"), {"a row has an id": lambda t: t.id != "x"})


def test_the_examples_are_three_however_many_rows_break_a_rule(tmp_path):
    _write(tmp_path / "clicks", {name: values * 50 for name, values in CLICKS.items()})
    _write(tmp_path / "items", ITEMS)
    with pytest.raises(BadNight) as refused:
        validate.check_set(tmp_path, Window(0, 10, 20), 2)
    assert "150 rows fail" in str(refused.value) and str(refused.value).count("'event_time'") == 3


@pytest.mark.parametrize("counter", [np.nan, np.inf, -1.0])
def test_counters_that_are_not_finite_are_refused(finished_night, tmp_path, counter):
    offline = finished_night.settings.home / "offline"
    validate.check_features(offline, finished_night.card)
    shutil.copytree(offline, tmp_path / "offline")
    file = next((tmp_path / "offline" / "item_activity" / "part=all").glob("*.parquet"))
    rows = pq.read_table(file)
    counters = rows["counters"].to_pylist()
    counters[0][1] = counter
    changed = pa.array(counters, rows.schema.field("counters").type)
    pq.write_table(rows.set_column(rows.schema.get_field_index("counters"), "counters", changed), file)
    with pytest.raises(BadNight, match="item activity features .* 3 counters, finite and not negative. 1 rows fail"):
        validate.check_features(tmp_path / "offline", finished_night.card)


def test_of_old_sets_the_data_cards_stay(tmp_path):
    days = ("2023-11-16", "2023-11-17", "2023-11-18")
    for day in days:
        folder = tmp_path / "training_sets" / day
        for part in PARTS:
            (folder / part).mkdir(parents=True)
        write_card(folder, {"date": day})
    prune(tmp_path, keep=2)
    assert [has_rows(tmp_path / "training_sets" / day) for day in days] == [False, True, True]
    assert [path.name for path in (tmp_path / "training_sets" / days[0]).iterdir()] == ["card.json"]


def test_a_set_whose_categories_have_moved_too_far_is_refused(card):
    moved = {"rows": 10, "category_drift": 3.0}
    with pytest.raises(BadNight, match=r"within 2.0 \(stability index\)"):
        validate.check_card(moved, card, Rules())
    validate.check_card(moved, card, Rules(max_drift=5))


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


@pytest.mark.usefixtures("spark")
def test_a_lake_of_one_day_says_what_to_do(tmp_path: Path):
    """Before anything is built of it: there is nothing to learn from before the day to test on."""
    write_market(tmp_path, clicks=400)
    clicks = pd.read_csv(tmp_path / "market" / "clicks.csv").assign(at=FIRST_MS + 5_000)
    clicks.to_csv(tmp_path / "market" / "clicks.csv", index=False)
    settings = load_settings(home=tmp_path / "home", dataset=str(tmp_path / "market.toml"))
    with pytest.raises(NightError, match="all clicks of the lake are of 2023-11-15: .* DAT_NIGHT__CUT=last-out"):
        run_night(settings, progress=Silent())
