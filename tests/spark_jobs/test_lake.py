"""The click lake: whatever lands twice counts once."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from kafka import KafkaProducer
from kafka.admin import KafkaAdminClient, NewTopic
from pyspark.sql import SparkSession

from cli.nightly import spark_kafka_jars
from feature_repo.card import load_card
from feature_repo.source import read_clicks
from spark_jobs.config import NightConfig
from spark_jobs.lake import LakeError, compact, land, land_kafka, read_lake, read_log
from spark_jobs.session import spark_session
from streaming.topics import CLICKS
from tests.market import FIRST_MS, write_market
from tests.own_logs import LOGS, bring


@pytest.fixture(scope="module")
def spark(tmp_path_factory: pytest.TempPathFactory):
    with spark_session(NightConfig(), tmp_path_factory.mktemp("spark"), spark_kafka_jars()) as session:
        yield session


def _rows(spark: SparkSession, card, lake: Path) -> list[tuple]:
    clicks = read_lake(spark, card, lake).select("event_id", "query_id", "item_id", "event_time", "offset")
    return sorted(tuple(row) for row in clicks.collect())


def _send(bootstrap: str, topic: str, values: list[bytes]) -> None:
    producer = KafkaProducer(bootstrap_servers=bootstrap)
    for value in values:
        producer.send(topic, value, key=b"same", partition=0)
    producer.close()


def _click(number: int, time_ms: int) -> bytes:
    return json.dumps(
        {"event_id": f"e{number}", "query_id": "u1", "item_id": f"s{number}", "event_time": time_ms}
    ).encode()


def test_a_log_that_lands_twice_is_the_same_lake(spark, tmp_path: Path):
    card = load_card(write_market(tmp_path))
    lake = tmp_path / "lake"
    land(read_log(spark, card, tmp_path / "market"), card, lake, "log")
    first = _rows(spark, card, lake)
    land(read_log(spark, card, tmp_path / "market"), card, lake, "log")
    assert _rows(spark, card, lake) == first
    assert len(first) == len(set(first)) > 2_000


@pytest.mark.parametrize("name", LOGS)
def test_spark_reads_a_log_of_ones_own_as_the_experiments_do(name, spark, tmp_path: Path):
    card = load_card(bring(tmp_path, name))
    columns = ["query_id", "item_id", "event_time"]
    found = sorted(tuple(row) for row in read_log(spark, card, tmp_path / "log").select(columns).collect())
    expected = read_clicks(card, tmp_path / "log").select(columns).to_pylist()
    assert found == sorted(tuple(row.values()) for row in expected)


def test_kafka_lands_once_over_restarts_with_late_and_repeated_and_unreadable_clicks(spark, tmp_path: Path, broker):
    topic = "landing-test"
    KafkaAdminClient(bootstrap_servers=broker.bootstrap).create_topics([NewTopic(topic, 2, 1)])
    card = load_card(write_market(tmp_path))
    lake, checkpoint = tmp_path / "lake", tmp_path / "checkpoint"
    day = card.day_ms
    _send(broker.bootstrap, topic, [_click(1, FIRST_MS + day), b"not json", _click(2, FIRST_MS + 2 * day)])
    land_kafka(spark, card, broker.bootstrap, topic, lake, checkpoint)
    assert [row[0] for row in _rows(spark, card, lake)] == ["e1", "e2"]

    late = [_click(3, FIRST_MS), _click(2, FIRST_MS + 2 * day), _click(4, 5)]  # late; repeated; in the year 1970
    _send(broker.bootstrap, topic, late)
    land_kafka(spark, card, broker.bootstrap, topic, lake, checkpoint)
    land_kafka(spark, card, broker.bootstrap, topic, lake, checkpoint)
    rows = _rows(spark, card, lake)
    assert [row[0] for row in rows] == ["e1", "e2", "e3"]
    assert {row[0]: row[4] for row in rows}["e3"] == 3, "the offset is kept: it says where a bundle's cut is"
    days = {path.name for path in lake.glob("landing=*/date=*")}
    assert days == {"date=2023-11-15", "date=2023-11-16", "date=2023-11-17"}, "a late click lies under its own day"


def test_an_event_that_both_a_log_and_kafka_have_counts_once_and_keeps_its_offset(spark, tmp_path: Path):
    card = load_card(write_market(tmp_path))
    lake = tmp_path / "lake"
    fields = "event_id string, query_id string, item_id string, event_time long, partition int, offset long"
    land(spark.createDataFrame([("e", "u1", "s1", FIRST_MS, None, None)], fields), card, lake, "log")
    land(spark.createDataFrame([("e", "u1", "s1", FIRST_MS, 0, 7)], fields), card, lake, "kafka-0")
    assert _rows(spark, card, lake) == [("e", "u1", "s1", FIRST_MS, 7)]


FIELDS = "event_id string, query_id string, item_id string, event_time long, partition int, offset long"


def _land(spark, card, lake: Path, landing: str, numbers: list[int]) -> None:
    rows = [(f"e{n}", "u1", f"s{n}", FIRST_MS + n * card.day_ms // 4, 0, n) for n in numbers]
    land(spark.createDataFrame(rows, FIELDS), card, lake, landing)


def test_compaction_leaves_one_landing_a_day_and_every_click_once_wherever_it_was_interrupted(
    spark, tmp_path: Path, monkeypatch
):
    card = load_card(write_market(tmp_path))
    lake = tmp_path / "lake"
    for number, events in enumerate(([0, 1, 4], [1, 2, 5], [3, 9])):
        _land(spark, card, lake, f"kafka-{number}", events)
    before = _rows(spark, card, lake)
    assert [row[0] for row in before] == ["e0", "e1", "e2", "e3", "e4", "e5", "e9"]

    def fails(path, **_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:  # the new landing is there, and no old one is gone
        patch.setattr("spark_jobs.lake.shutil.rmtree", fails)
        with pytest.raises(KeyboardInterrupt):
            compact(spark, lake)
    assert _rows(spark, card, lake) == before
    assert compact(spark, lake) == 2
    assert _rows(spark, card, lake) == before
    files = {path.parent: path for path in lake.glob("landing=*/date=*/*.parquet")}
    assert len({path.name for path in files}) == len(files) == 3, "a day is one file"
    assert compact(spark, lake) == 0
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


def _dat_lake(home: Path, card: Path, bootstrap: str, *options: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "cli", "lake", "--data", str(card), "--home", str(home)]
    environment = os.environ | {"DAT_NIGHT__LAKE_BATCH": "100", "DAT_NIGHT__CORES": "2"}
    return subprocess.Popen([*command, "--bootstrap", bootstrap, *options], env=environment, start_new_session=True)


def _wait_for_landings(process: subprocess.Popen, lake: Path, count: int) -> None:
    deadline = time.monotonic() + 240
    while len(list(lake.glob("landing=*"))) < count:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)


def test_a_follower_that_is_killed_in_the_middle_loses_no_click_and_lands_none_twice(spark, tmp_path, bootstrap):
    card_file = write_market(tmp_path)
    card, home = load_card(card_file), tmp_path / "home"
    lake = home / "lake" / "clicks"
    _send(bootstrap, CLICKS, [_click(n, FIRST_MS + n * 300_000) for n in range(600)])
    process = _dat_lake(home, card_file, bootstrap, "--follow", "--every", "1 second")
    try:
        _wait_for_landings(process, lake, 2)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert 2 <= len(list(lake.glob("landing=*"))) < 6, "the kill should fall in the middle"
        process = _dat_lake(home, card_file, bootstrap)
        assert process.wait(300) == 0
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    assert [row[0] for row in _rows(spark, card, lake)] == sorted(f"e{n}" for n in range(600))
    assert all(len(list(lake.glob(f"landing=*/{path.name}"))) == 1 for path in lake.glob("landing=*/date=*"))
