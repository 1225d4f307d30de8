"""A night that holds out each query's last click, on a log so small that what is in which set is known by eye."""

from dataclasses import replace
from datetime import date
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

from cli.nightly import run_night
from cli.settings import Settings
from feature_repo.card import load_card
from feature_repo.click_event import EARLIEST_MS
from feature_repo.source import SPAN_MS
from spark_jobs.config import NightConfig, Rules
from spark_jobs.days import window
from spark_jobs.lake import read_log
from spark_jobs.last_out import closing, cut_by, hold_out
from spark_jobs.renewal import Renewal
from spark_jobs.session import spark_session
from spark_jobs.training_set import data_card, folder_of
from tests.market import FIRST_MS
from tests.own_logs import bring
from tests.spark_jobs.conftest import FinishedNight, Silent
from training.bundle import Shelf
from training.config import DATConfig

HOUR, DAY = 3_600_000, 86_400_000
CUT = date(2023, 11, 18)  # the window: 15, 16 and 17 November; FIRST_MS begins the 15th
CARD = """
name = "hand"
title = "A log by hand"
folder = "log"
window_days = 3
clicks = { path = "clicks.csv", query = "who", item = "what", time = "at", time_unit = "ms" }
query.half_lives = ["1h"]
item.half_lives = ["1h"]
"""
BEFORE = [("ann", "a", -5 * HOUR), ("eve", "b", -4 * HOUR), ("eve", "c", -3 * HOUR)]  # ahead of the window
TRAIN = [
    ("ann", "b", 1 * HOUR), ("bob", "a", 2 * HOUR), ("dan", "c", 3 * HOUR), ("bob", "d", DAY), ("ann", "d", DAY + HOUR),
    ("dan", "e", DAY + 2 * HOUR), ("fay", "a", 2 * DAY), ("fay", "b", 2 * DAY + HOUR),
]  # fmt: skip
HELD = [
    ("ann", "c", 2 * DAY + 2 * HOUR), ("bob", "e", 2 * DAY + 3 * HOUR),
    ("cat", "f", 3 * HOUR),  # her only one, and the only one on f
    ("dan", "a", DAY + 5 * HOUR),  # not his last ever
    ("fay", "d", 2 * DAY + 4 * HOUR),
]  # fmt: skip
AFTER = [("dan", "b", 3 * DAY + HOUR), ("gus", "a", 3 * DAY + HOUR)]


def settings_of(folder: Path) -> Settings:
    (folder / "log").mkdir(exist_ok=True)
    (folder / "hand.toml").write_text(CARD)
    lines = [f"{who},{what},{FIRST_MS + at}" for who, what, at in AFTER + HELD + TRAIN + BEFORE]
    (folder / "log" / "clicks.csv").write_text("\n".join(["who,what,at", *lines]) + "\n")
    night = NightConfig(
        cut="last-out",
        negatives=2,
        model=DATConfig(epochs=1),
        rules=Rules(min_day=0, max_item_share=1),
        gate_coverage=0,
    )
    return Settings(home=folder / "home", data=folder, dataset=str(folder / "hand.toml"), night=night)


def clicks_of(rows) -> list[tuple]:
    return sorted((who, what, FIRST_MS + at) for who, what, at in rows)


def number(value) -> int:
    """0 where nothing is known."""
    return 0 if pd.isna(value) else int(value)


def test_what_is_held_out_is_tried_and_known_to_nothing(tmp_path: Path):
    settings = settings_of(tmp_path)
    night = run_night(settings, CUT, progress=Silent())
    folder = folder_of(settings.home, CUT)
    rows = pq.read_table(folder / "train").to_pandas()
    test = pq.read_table(folder / "test").to_pandas()
    assert clicks_of(TRAIN) == sorted(zip(rows.query_id, rows.candidates.str[0], rows.event_time, strict=True))
    assert clicks_of(HELD) == sorted(zip(test.query_id, test.item_id, test.event_time, strict=True))

    # Every feature of every row counts the clicks of before it that are not held out, and no others.
    known = pd.DataFrame(
        [(who, what, FIRST_MS + at) for who, what, at in BEFORE + TRAIN], columns=["who", "what", "at"]
    )
    for row in rows.itertuples():
        past = known[known["at"] < row.event_time]
        mine = past[past.who == row.query_id]["at"]
        assert (number(row.query__clicks), number(row.query__last_click)) == (len(mine), number(mine.max()))
        for item, clicks, last in zip(row.candidates, row.item__clicks, row.item__last_click, strict=True):
            of = past[past.what == item]["at"]
            assert (number(clicks), number(last)) == (len(of), number(of.max()))

    # So do the states at the cut, the corpus, and what the model has folded into a_u and a_v.
    state = {
        side: pq.read_table(folder / f"{side}_state.parquet").to_pandas().set_index("id") for side in ("query", "item")
    }
    assert state["query"].clicks.to_dict() == known.who.value_counts().to_dict()
    assert state["item"].clicks.to_dict() == known.what.value_counts().to_dict()
    histories = {who: list(of.what) for who, of in known.sort_values("at").groupby("who")}
    assert state["query"].history.map(list).to_dict() == histories
    assert set(pq.read_table(folder / "corpus")["item_id"].to_pylist()) == set("abcde")
    bundle = Shelf(settings.home / "bundles").load(night.bundle)
    assert dict(zip(bundle.queries.ids, bundle.queries.folded, strict=True)) == {
        "ann": 2, "bob": 2, "dan": 2, "fay": 2, "eve": 0,
    }  # fmt: skip
    assert bundle.items.folded.sum() == len(TRAIN) == night.rows

    # No later night may count on from a history that lacks them.
    assert night.gate.verdict == "published" and "on the last-out test" in night.gate.reason
    assert night.metrics["static_clicks"] == len(HELD) and not any(name.startswith("live") for name in night.metrics)
    assert not (settings.home / "offline" / "made.json").exists()
    assert data_card(folder)["test_clicks_known_query"] == len(HELD) - 1

    # Made again it has the same bytes. A night on these clicks' next ones may start from it.
    assert run_night(settings, CUT, again=True, progress=Silent()).training_set_sha256 == night.training_set_sha256
    assert parent_of(settings, "last-out") == parent_of(settings, "day") == night.bundle


def parent_of(settings: Settings, cut_by: str) -> str | None:
    """What a later night would start from."""
    renewal = Renewal(settings.home, settings.card, None, settings.night, None)
    return renewal.parent({"cut": 2 * FIRST_MS, "cut_by": cut_by})


def test_a_bundle_that_was_tried_on_a_later_day_has_learnt_from_what_is_held_out(finished_night: FinishedNight):
    assert parent_of(finished_night.settings, "day") == finished_night.summary.bundle
    assert parent_of(finished_night.settings, "last-out") is None


@pytest.fixture(scope="module")
def spark(tmp_path_factory: pytest.TempPathFactory):
    with spark_session(NightConfig(), tmp_path_factory.mktemp("spark")) as session:
        yield session


def test_of_clicks_at_one_moment_always_the_same_is_the_last(spark):
    rows = [(f"e{n}", "ann", f"i{n}", FIRST_MS + 7) for n in range(20)]
    span = replace(window(load_card("globo-news"), CUT, 3), start=0)
    found = set()
    for parts in (1, 3, 7):
        clicks = spark.createDataFrame(
            rows[parts:] + rows[:parts], "event_id string, query_id string, item_id string, event_time long"
        )
        kept, held = hold_out(clicks.repartition(parts), closing(span, clicks))
        assert kept.count() == 19
        found.add(held.first()["event_id"])
    assert len(found) == 1


def test_positions_become_moments_in_the_order_of_each_query(spark, tmp_path: Path):
    card_file = bring(tmp_path, "books")
    assert cut_by(load_card(card_file), NightConfig()) == "day"
    text = card_file.read_text().replace('time = "at"', 'time = "at", time_unit = "position"')
    card_file.write_text(text)
    card = load_card(card_file)
    assert cut_by(card, NightConfig()) == "last-out"
    log = read_log(spark, card, tmp_path / "log").toPandas()
    raw = pd.read_csv(tmp_path / "log" / "ratings.csv", sep=";")
    assert log.event_time.between(EARLIEST_MS, EARLIEST_MS + SPAN_MS - 1).all()
    for reader, of in log.groupby("query_id"):
        ordered = raw[raw.reader == reader].sort_values(["at", "book"]).book
        assert list(of.sort_values("event_time").item_id) == list(ordered)
        steps = of.event_time.sort_values().diff().dropna()
        assert (steps - SPAN_MS / len(of)).abs().max() <= 1
