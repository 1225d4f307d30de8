"""A night that leaves out each query's last click, on a log so small that what is in which set is known by eye."""

from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from cli.nightly import run_night
from feature_repo.card import load_card
from model.bundle_store import BundleStore
from model.settings.model import DATConfig
from model.settings.night import NightConfig, Rules
from model.settings.settings import Settings
from spark_jobs.leave_last_out import cut_by, leave_last_out
from spark_jobs.nightly import Night
from spark_jobs.training_set import data_card, folder_of
from tests.market import FIRST_MS
from tests.own_logs import bring
from tests.spark_jobs.conftest import FinishedNight, Silent
from training.training_set import TrainingSet

HOUR, DAY = 3_600_000, 86_400_000
CUT = date(2023, 11, 18)  # the window: 15, 16 and 17 November; FIRST_MS begins the 15th
CARD = """
name = "hand"
title = "A log by hand"
folder = "log"
window_days = 3
clicks = { path = "clicks.csv", query = "who", item = "what", time = "at", time_unit = "ms" }
[query]
half_lives = ["1h"]
table = { path = "people.csv", id = "id" }
features = { "select" = { column = "sort", kind = "category" }, "last click" = { column = "since", kind = "time" } }
[item]
half_lives = ["1h"]
table = { path = "things.csv", id = "id" }
category = "group"
[item.features]
group = { column = "sort", kind = "category" }
Group = { column = "sort", kind = "text" }
"1st.order" = { column = "sort", kind = "categories" }
clicks = { column = "size", kind = "number" }
id = { column = "id", kind = "text" }
"price/€" = { column = "size", kind = "number" }
event_timestamp = { column = "since", kind = "time" }
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
    for file, ids in (("people", ("ann", "bob", "cat", "dan", "eve", "fay", "gus")), ("things", "abcde")):
        rows = [f"{name},{'xyz'[n % 3]},{n},{FIRST_MS - n * DAY}" for n, name in enumerate(ids)]
        (folder / "log" / f"{file}.csv").write_text("\n".join(["id,sort,size,since", *rows]) + "\n")
    night = NightConfig(
        cut="last-out",
        negatives=2,
        model=DATConfig(epochs=1),
        rules=Rules(min_day=0, max_item_share=1),
        gate_coverage=0,
        gate_popularity=False,
    )
    return Settings(home=folder / "home", data=folder, dataset=str(folder / "hand.toml"), night=night)


def clicks_of(rows) -> list[tuple]:
    return sorted((who, what, FIRST_MS + at) for who, what, at in rows)


@pytest.mark.slow
@pytest.mark.usefixtures("spark")
def test_what_is_left_out_is_predicted_and_known_to_nothing(tmp_path: Path):
    settings = settings_of(tmp_path)
    night = run_night(settings, CUT, progress=Silent())
    folder = folder_of(settings.home, CUT)
    data, test = TrainingSet.load(folder, settings.card), pq.read_table(folder / "test").to_pandas()
    names = [np.array(state.ids)[rows].tolist() for state, rows in
             ((data.queries, data.clicks.queries), (data.items, data.clicks.items))]  # fmt: skip
    assert clicks_of(TRAIN) == sorted(zip(*names, data.clicks.times.tolist(), strict=True))
    assert sorted((who, what) for who, what, _ in HELD) == sorted(zip(test.query_id, test.item_id, strict=True))
    assert (test.event_time == data.clicks.times.max() + 1).all(), "just after all that is known, at one moment"

    # Before the window, and at the cut, both sides have the clicks that are not left out, and no others.
    for known, states in ((BEFORE, (data.queries, data.items)), (BEFORE + TRAIN, data.at_cut)):
        rows = pd.DataFrame(known, columns=["query", "item", "at"])
        for side, state in zip(("query", "item"), states, strict=True):
            counts = rows[side].value_counts()
            assert {key: n for key, n in zip(state.ids, state.clicks.tolist(), strict=True) if n} == counts.to_dict()
            last = FIRST_MS + rows.groupby(side)["at"].max()
            assert state.last_click[state.rows(last.index)].tolist() == last.tolist()
    queries, items = data.at_cut
    for who, of in rows.sort_values("at").groupby("query"):
        ring = queries.recent_items[queries.ids.index(who)]
        assert [items.ids[row] for row in ring[ring >= 0]] == list(of["item"])
    assert items.ids == sorted("abcde", key=lambda what: (rows[rows["item"] == what]["at"].min(), what))

    # The bundle, which was trained without them, has folded them in: no stream will deliver what the log has.
    bundle = BundleStore(settings.home / "bundles").load(night.bundle)
    for side, of in (("queries", 0), ("items", 1)):
        state, everyone = getattr(bundle, side), pd.Series([click[of] for click in TRAIN + HELD + AFTER])
        folded = dict(zip(state.ids, state.update_count.tolist(), strict=True))
        assert {key: n for key, n in folded.items() if n} == everyone.value_counts().to_dict()
    assert night.rows == len(TRAIN)

    assert night.gate.verdict == "published" and "on the last-out test" in night.gate.reason
    assert night.metrics["static_clicks"] == len(HELD) and not any(name.startswith("live") for name in night.metrics)
    assert data_card(folder)["test_clicks_known_query"] == len(HELD) - 1

    # Made again it has the same bytes. A night on these clicks' next ones may start from it.
    assert run_night(settings, CUT, again=True, progress=Silent()).training_set_sha256 == night.training_set_sha256
    assert parent_of(settings, "last-out") == parent_of(settings, "day") == night.bundle


def parent_of(settings: Settings, cut: str) -> str | None:
    """What a later night would start from."""
    night = Night(settings.home, settings.card, None, settings.night, Silent())
    return night._parent({"cut": 2 * FIRST_MS, "cut_by": cut})


def test_a_bundle_that_was_evaluated_on_a_later_day_has_learnt_from_what_is_left_out(finished_night: FinishedNight):
    assert parent_of(finished_night.settings, "day") == finished_night.summary.bundle
    assert parent_of(finished_night.settings, "last-out") is None


def test_of_clicks_at_one_moment_always_the_same_is_the_last(spark):
    rows = [(f"e{n}", "ann", f"i{n}", FIRST_MS + 7) for n in range(20)]
    found = set()
    for parts in (1, 7):
        clicks = spark.createDataFrame(
            rows[parts:] + rows[:parts], "event_id string, query_id string, item_id string, event_time long"
        )
        kept, left_out = leave_last_out(clicks.repartition(parts), load_card("globo-news"))
        assert kept.count() == 19
        found.add(left_out.first()["event_id"])
    assert len(found) == 1


def test_a_log_of_positions_is_cut_by_its_last_clicks_and_one_with_times_by_the_day(tmp_path: Path):
    card_file = bring(tmp_path, "books")
    assert cut_by(load_card(card_file), NightConfig()) == "day"
    card_file.write_text(card_file.read_text().replace('time = "at"', 'time = "at", time_unit = "position"'))
    assert cut_by(load_card(card_file), NightConfig()) == "last-out"
