"""The click lake: whatever lands twice counts once."""

from datetime import date
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from feature_repo.card import load_card
from feature_repo.event_rule import EventRule
from feature_repo.place import UrlPath
from feature_repo.reader.clicks import COLUMNS, read_clicks
from model.settings.night import Rules
from spark_jobs.lake import (
    LakeError,
    between,
    compact,
    counted,
    dates,
    day_counts,
    fingerprints,
    land,
    landings,
    read_lake,
    retire,
)  # fmt: skip
from spark_jobs.land_log import land_log
from tests.market import FIRST_MS, write_market
from tests.own_logs import LOGS, bring


def _rows(spark: SparkSession, card, lake: Path) -> list[tuple]:
    clicks = read_lake(spark, card, lake).select("event_id", "query_id", "item_id", "event_time", "offset")
    return sorted(tuple(row) for row in clicks.collect())


def test_a_log_that_lands_twice_is_the_same_lake(spark, tmp_path: Path):
    card = load_card(write_market(tmp_path))
    lake = tmp_path / "lake"
    report = land_log(card, tmp_path / "market", lake, Rules())
    first = _rows(spark, card, lake)
    assert land_log(card, tmp_path / "market", lake, Rules()) is None
    assert land_log(card, tmp_path / "market", lake, Rules(), again=True).landed == report.landed
    assert _rows(spark, card, lake) == first
    assert len(first) == len(set(first)) == report.rows == report.landed > 2_000


@pytest.mark.parametrize("name", LOGS)
def test_the_lake_holds_a_log_of_ones_own_as_the_experiments_read_it(name, spark, tmp_path: Path):
    card = load_card(bring(tmp_path, name))
    land_log(card, tmp_path / "log", tmp_path / "lake", Rules())
    found = read_lake(spark, card, tmp_path / "lake").select(*COLUMNS).toPandas()
    expected = read_clicks(card, tmp_path / "log").to_pandas()
    found = found.sort_values(["event_time", "position"], ignore_index=True)
    pd.testing.assert_frame_equal(found, expected)
    assert found.event_id.is_unique


def test_an_event_that_both_a_log_and_kafka_have_counts_once_and_keeps_its_offset(spark, tmp_path: Path):
    card = load_card(write_market(tmp_path))
    lake = tmp_path / "lake"
    land(spark.createDataFrame([("e", "u1", "s1", FIRST_MS, None, None, None, None, 3)], FIELDS), card, lake, "log-1")
    land(spark.createDataFrame([("e", "u1", "s1", FIRST_MS, 0, 7, None, None, None)], FIELDS), card, lake, "kafka-0")
    assert _rows(spark, card, lake) == [("e", "u1", "s1", FIRST_MS, 7)]


@pytest.mark.parametrize("events", [{}, {"buy": 5.0, "it's": 0.1, "zero": 0.0, "no": -1.0}], ids=["any", "listed"])
@pytest.mark.parametrize("at_least", [None, 4.0])
def test_lake_and_log_take_for_a_click_exactly_what_the_stream_takes_for_one(spark, tmp_path, events, at_least):
    rule = EventRule(events=events, at_least=at_least)
    kinds, values = (None, "buy", "it's", "zero", "no", "other"), (None, -1.0, 3.999, 4.0, 5.0)
    rows = [(n, *row) for n, row in enumerate((kind, value) for kind in kinds for value in values)]
    weights = {n: rule.weight(kind, value) for n, kind, value in rows}
    clicks = [n for n, weight in weights.items() if weight > 0]
    landed = spark.createDataFrame(rows, "n int, event_type string, value double")
    for signals, expected in ((False, clicks), (True, [n for n, weight in weights.items() if weight])):
        assert sorted(row.n for row in landed.where(counted(rule, signals)).collect()) == expected
    frame = pd.DataFrame(rows, columns=["item", "kind", "amount"]).assign(query="u", time=1_700_000_000)
    frame.to_parquet(tmp_path / "log.parquet")
    listed = ", ".join(f'"{name}" = {weight}' for name, weight in events.items())
    (tmp_path / "card.toml").write_text(
        'name = "l"\ntitle = "l"\n[clicks]\npath = "log.parquet"\nevent_type = "kind"\nvalue = "amount"\n'
        + (f"at_least = {at_least}\n" if at_least else "") + (f"events = {{ {listed} }}\n" if listed else "")
    )  # fmt: skip
    read = read_clicks(load_card(tmp_path / "card.toml"), tmp_path)["item_id"].to_pylist()
    # In a log whose card lists types, a row without one is none.
    assert sorted(map(int, read)) == [n for n in clicks if not events or rows[n][1] is not None]


FIELDS = (
    "event_id string, query_id string, item_id string, event_time long, partition int, offset long, event_type string, "
    "value double, position long"
)


def _land(spark, card, lake: Path, landing: str, numbers: list[int]) -> None:
    rows = [(f"e{n}", "u1", f"s{n}", FIRST_MS + n * card.day_ms // 4, 0, n, None, None, None) for n in numbers]
    land(spark.createDataFrame(rows, FIELDS), card, lake, landing)


@pytest.mark.parametrize("kind", ["folder", "url"])
def test_compaction_leaves_one_landing_a_day_and_every_click_once_wherever_it_was_interrupted(
    kind: str, spark, tmp_path: Path, monkeypatch
):
    card = load_card(write_market(tmp_path))
    lake = tmp_path / "lake" if kind == "folder" else UrlPath.of(f"file://{tmp_path}") / "lake"
    for number, events in enumerate(([0, 1, 4], [1, 2, 5], [3, 9])):
        _land(spark, card, lake, f"kafka-{number}", events)
    before = _rows(spark, card, lake)
    assert [row[0] for row in before] == ["e0", "e1", "e2", "e3", "e4", "e5", "e9"]

    def fails(path, **_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:  # the new landing is there, and no old one is gone
        patch.setattr("spark_jobs.lake.delete_table", fails)
        with pytest.raises(KeyboardInterrupt):
            compact(spark, card, lake)
    assert _rows(spark, card, lake) == before
    assert compact(spark, card, lake) == 2
    assert _rows(spark, card, lake) == before
    landed = landings(lake)
    names = [file.name for one in landed for file in one.files]
    assert len({one.date for one in landed}) == len(landed) == 3, "a day is one landing"
    assert len(set(names)) == len(names), "and a file's name its own"
    assert compact(spark, card, lake) == 0
    _land(spark, card, lake, "kafka-1", [1, 2, 5])  # a micro-batch that was compacted away is run again
    assert _rows(spark, card, lake) == before


def test_a_file_that_is_cut_off_or_lacks_a_column_is_named(spark, tmp_path: Path):
    card = load_card(write_market(tmp_path))
    lake = tmp_path / "lake"
    _land(spark, card, lake, "kafka-0", [0, 1])
    file = next(lake.glob("landing=*/date=*/*.parquet"))
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(LakeError, match=f"{file.name} is damaged.*land its clicks again"):
        read_lake(spark, card, lake)
    file.write_bytes(whole)
    pq.write_table(pq.read_table(file, partitioning=None).rename_columns({"item_id": "product_id"}), file)
    with pytest.raises(LakeError, match="lacks the column item_id"):
        read_lake(spark, card, lake)


def test_days_that_are_deleted_stay_so_and_leave_the_files_of_the_others(spark, tmp_path: Path):
    card, lake = load_card(write_market(tmp_path)), tmp_path / "lake"
    _land(spark, card, lake, "kafka-0", [0, 5, 9])
    assert retire(lake, card, FIRST_MS) == []
    assert retire(lake, card, FIRST_MS + card.day_ms) == ["2023-11-15"]
    assert [row[0] for row in _rows(spark, card, lake)] == ["e5", "e9"]
    _land(spark, card, lake, "kafka-1", [1])  # a click that is late for such a day
    assert [row[0] for row in _rows(spark, card, lake)] == ["e5", "e9"]
    assert dates(lake) == ["2023-11-16", "2023-11-17"] and len(fingerprints(lake)) == 2
    assert day_counts(lake, 9) == [(date(2023, 11, 16 + n), 1, FIRST_MS + (5, 9)[n] * card.day_ms // 4) for n in (0, 1)]


def test_a_span_of_time_is_read_without_a_look_at_other_days(spark, tmp_path: Path):
    card, lake = load_card(write_market(tmp_path)), tmp_path / "lake"
    _land(spark, card, lake, "kafka-0", [0, 5, 6, 9])
    (damaged,) = (lake / "landing=kafka-0" / "date=2023-11-15").glob("*.parquet")
    damaged.write_bytes(b"PAR1")
    with pytest.raises(LakeError, match="is damaged"):
        read_lake(spark, card, lake)
    clicks = read_lake(spark, card, lake, since="2023-11-16")
    start = FIRST_MS + card.day_ms
    found = clicks.where(between(card, start, start + card.day_ms)).select("event_id").collect()
    assert sorted(row.event_id for row in found) == ["e5", "e6"]
