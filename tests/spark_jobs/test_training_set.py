"""What a real night wrote, held against brute force on the log itself."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cli.nightly import run_night
from feature_repo.store import open_spark_store, open_store
from spark_jobs import joins
from spark_jobs.as_of import AsOf
from spark_jobs.config import NightConfig
from spark_jobs.session import spark_session
from spark_jobs.training_set import data_card
from tests.market import FIRST_MS
from tests.spark_jobs.conftest import FinishedNight, Silent


@pytest.fixture(scope="module")
def log(finished_night: FinishedNight) -> pd.DataFrame:
    """All clicks of the log."""
    clicks = pd.read_csv(finished_night.settings.data / "market" / "clicks.csv")
    return clicks.rename(columns={"user": "query_id", "shop": "item_id", "at": "event_time"})


@pytest.fixture(scope="module")
def rows(finished_night: FinishedNight) -> pd.DataFrame:
    """The training rows."""
    return pq.read_table(finished_night.folder / "train").to_pandas()


@pytest.fixture(scope="module")
def cut(finished_night: FinishedNight) -> int:
    return int(pd.Timestamp(finished_night.summary.date, tz="UTC").value // 1_000_000)


def test_every_click_of_the_window_is_a_row_and_no_other(rows, log, cut, finished_night):
    inside = log[(log.event_time >= cut - 3 * 86_400_000) & (log.event_time < cut)].drop_duplicates()
    asked = sorted(zip(inside.query_id, inside.item_id, inside.event_time, strict=True))
    assert sorted(zip(rows.query_id, rows.candidates.str[0], rows.event_time, strict=True)) == asked
    assert finished_night.summary.rows == len(asked) > 1_000


def test_each_positive_has_exactly_s_negatives(rows, finished_night):
    assert (rows.candidates.str.len() == 1 + finished_night.settings.night.negatives).all()


def test_no_negative_was_clicked_by_that_query_in_the_window(rows):
    clicked = rows.groupby("query_id").candidates.agg(lambda column: {names[0] for names in column})
    for query, names in zip(rows.query_id, rows.candidates, strict=True):
        assert not clicked[query] & set(names[1:])


def test_every_negative_existed_at_that_moment(rows, finished_night):
    shops = pd.read_csv(finished_night.settings.data / "market" / "shops.csv").set_index("shop").opened
    flat = rows.explode("candidates")
    assert (shops[flat.candidates].to_numpy() <= flat.event_time.to_numpy()).all()
    late = shops[shops > FIRST_MS].index
    assert flat.candidates.isin(late).any(), "the market should have shops that open late, or this shows nothing"


def _before(log: pd.DataFrame, column: str, key: str, moment: int, half_lives_h: list[int]):
    past = log[(log[column] == key) & (log.event_time < moment)].drop_duplicates()
    if past.empty:
        return None
    last = past.event_time.max()
    ages = (last - past.event_time.to_numpy()) / 3_600_000
    return len(past), [np.exp2(-ages / h).sum() for h in half_lives_h], last


def test_query_activity_is_that_of_just_before_the_click(rows, log):
    for row in rows.sample(150, random_state=0).itertuples():
        expected = _before(log, "query_id", row.query_id, row.event_time, [1, 24])
        if expected is None:
            assert np.isnan(row.query__clicks) and row.query__counters is None
        else:
            assert row.query__clicks == expected[0]
            np.testing.assert_allclose(row.query__counters[:2], expected[1], rtol=1e-4)  # then those by category
            assert row.query__last_click == expected[2]


def test_item_activity_of_all_candidates_is_that_of_just_before_the_click(rows, log):
    for row in rows.sample(60, random_state=1).itertuples():
        for place, name in enumerate(row.candidates):
            expected = _before(log, "item_id", name, row.event_time, [1, 6, 24])
            if expected is None:
                assert np.isnan(row.item__clicks[place])
            else:
                assert row.item__clicks[place] == expected[0]
                np.testing.assert_allclose(row.item__counters[place], expected[1], rtol=1e-4)


def test_profiles_are_the_catalogue_s_from_the_moment_that_an_id_exists(rows, finished_night):
    market = finished_night.settings.data / "market"
    users = pd.read_csv(market / "users.csv").set_index("user")
    shops = pd.read_csv(market / "shops.csv").set_index("shop")
    assert (rows.query__city == users.city[rows.query_id].to_numpy()).all()
    assert (rows.query__age == users.age[rows.query_id].to_numpy()).all()
    names = ["candidates", "item__kinds", "item__opened"]
    flat = rows[["event_time", *names]].explode(names)
    there = shops.loc[flat.candidates]
    assert (flat.item__opened.to_numpy() == there.opened.to_numpy()).all()
    assert (flat.item__kinds.str.join(" ").to_numpy() == there.kinds.to_numpy()).all()


def test_an_item_has_no_features_before_it_exists(finished_night):
    shops = pd.read_csv(finished_night.settings.data / "market" / "shops.csv").set_index("shop")
    late = shops[shops.opened > FIRST_MS].opened
    history = AsOf.of(open_store(finished_night.settings.home), "item_profile", ["kinds", "opened"])
    for name, opened in late.sort_values().items():
        before, after = (history.before(pa.array([name]), np.array([opened * 1000 + shift])) for shift in (-1, 0))
        assert before["kinds"][0].as_py() is None and after["opened"][0].as_py() == opened


@pytest.mark.parametrize("store", ["duckdb", "spark"])
def test_both_of_feast_s_offline_stores_give_the_rows_of_the_one_pass(finished_night, tmp_path, store):
    folder, card, home = finished_night.folder, finished_night.card, finished_night.settings.home
    if store == "duckdb":
        joins.feast_duckdb(open_store(home), card, folder / "positives", tmp_path / "train", lambda rows: None, 4_000)
    else:
        with spark_session(NightConfig(cores="2"), tmp_path / "spark") as spark:
            definitions = open_spark_store(home, card)
            joins.feast_spark(spark, definitions, card, folder / "positives", tmp_path / "train")
    expected, got = (pq.read_table(path / "train").sort_by("row_id") for path in (folder, tmp_path))
    assert sorted(got.column_names) == sorted(expected.column_names)
    for name in expected.column_names:
        assert got[name].to_pylist() == expected[name].to_pylist(), name


def test_the_data_card_counts_what_is_in_the_set(finished_night, rows, log, cut):
    card = data_card(finished_night.folder)
    test = log[(log.event_time >= cut) & (log.event_time < cut + 86_400_000)].drop_duplicates()
    assert card["rows"] == len(rows) and card["test_clicks"] == len(test)
    assert card["window_queries"] == rows.query_id.nunique()
    counts = rows.candidates.str[0].value_counts()
    assert card["window_items"] == len(counts)
    assert card["largest_item_share"] == pytest.approx(counts.max() / len(rows))
    differences = np.abs(counts.to_numpy()[:, None] - counts.to_numpy()[None, :]).mean()
    assert card["item_gini"] == pytest.approx(differences / (2 * counts.mean()))
    kinds = (
        pd.read_csv(finished_night.settings.data / "market" / "shops.csv").set_index("shop").kinds.str.split().str[0]
    )
    expected = rows.candidates.str[0].map(kinds).value_counts()
    assert card["categories"] == expected.to_dict()
    assert card["query_features_filled"] == {"city": 1, "age": 1}


def test_the_test_set_is_the_day_after_the_window(finished_night, log, cut):
    test = pq.read_table(finished_night.folder / "test").to_pandas()
    day = log[(log.event_time >= cut) & (log.event_time < cut + 86_400_000)].drop_duplicates()
    assert len(test) == len(day) > 300
    assert test.event_time.min() >= cut


def test_a_date_run_again_gives_the_same_bytes_and_the_same_bundle(finished_night):
    first = finished_night.summary
    again = run_night(finished_night.settings, again=True, progress=Silent())
    assert again.training_set_sha256 == first.training_set_sha256
    assert again.bundle == first.bundle
    assert again.gate.verdict == "published"


def test_the_state_at_the_cut_counts_every_click_before_it(finished_night, log, cut):
    known = log[log.event_time < cut].drop_duplicates()
    for side in ("query", "item"):
        state = pq.read_table(finished_night.folder / f"{side}_state.parquet").to_pandas().set_index("id")
        counts = known.groupby(f"{side}_id").size()
        assert state.clicks.fillna(0)[counts.index].eq(counts).all()
    history = pq.read_table(finished_night.folder / "query_state.parquet").to_pandas().set_index("id").history
    someone = known.query_id.iloc[-1]
    assert history[someone][-1] == known[known.query_id == someone].item_id.iloc[-1]
    assert history.str.len().max() == 20


def test_training_loads_the_output_without_pandas(finished_night):
    """Where pandas cannot even be imported, nothing can be copied through it."""
    program = """
import sys
from pathlib import Path

class NoPandas:
    def find_spec(self, name, path, target=None):
        if name == "pandas":
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, NoPandas())
from feature_repo.card import load_card
from training.examples import load_training_set
print(len(load_training_set(Path(sys.argv[1]), load_card(sys.argv[2])).examples))
"""
    arguments = [str(finished_night.folder), finished_night.settings.dataset]
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 100
