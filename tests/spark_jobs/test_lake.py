"""The click lake: whatever lands twice counts once."""

import json
from pathlib import Path

import pytest
from kafka import KafkaProducer
from kafka.admin import KafkaAdminClient, NewTopic
from pyspark.sql import SparkSession

from cli.nightly import spark_kafka_jars
from feature_repo.card import load_card
from spark_jobs.config import NightConfig
from spark_jobs.lake import land, land_kafka, read_lake, read_log
from spark_jobs.session import spark_session
from tests.market import FIRST_MS, write_market


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
