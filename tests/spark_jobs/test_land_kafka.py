"""From the topic into the lake: every record once, and a cut that neither loses nor doubles a click."""

import json
import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import numpy as np
import pytest
from kafka import KafkaProducer, TopicPartition
from kafka.admin import KafkaAdminClient

from devstack.chaos.night import disordered
from devstack.synthetic_bundle import made_up_bundle, made_up_home
from feature_repo.card import load_card
from feature_repo.store import open_store
from model.click import Click, ClickValidator, Record
from model.partitioner import partitions_of
from model.settings.updater import KafkaConnection, UpdaterConfig
from spark_jobs.lake import read_lake
from spark_jobs.land_kafka import Ledger, in_state, land_kafka, offsets_at
from streaming.kafka.clients import close_quietly, free_consumer
from streaming.kafka.topics import create_topics
from tests.conftest import PARTITIONS
from tests.market import FIRST_MS, write_market
from tests.streaming.loop import eventually, folds, produce, running, truth
from tests.streaming.test_secure_kafka import READ, TOPIC, WRITE, exist, grant, secure  # noqa: F401 (a fixture)

DAY = 86_400_000


@pytest.fixture
def card(tmp_path: Path):
    return load_card(write_market(tmp_path))


class Topic:
    """The click topic of a test, and the landing of it."""

    def __init__(self, kafka: KafkaConnection):
        self.config = UpdaterConfig(**kafka.model_dump())
        self.name = kafka.topics.clicks
        self.admin = KafkaAdminClient(**kafka.client)

    def send(self, clicks: list[Click]) -> None:
        self.send_raw([(click.query_id.encode(), click.model_dump_json().encode(), None) for click in clicks])

    def send_raw(self, records: list[tuple[bytes | None, bytes, int | None]]) -> None:
        producer = KafkaProducer(**self.config.client, acks="all")
        for future in [producer.send(self.name, value, key=key, partition=p) for key, value, p in records]:
            future.get(10)
        producer.close()

    def make_anew(self) -> None:
        self.admin.delete_topics([self.name])
        while self.name in self.admin.list_topics():
            time.sleep(0.05)
        create_topics(self.config, PARTITIONS)

    def land(self, spark, card, lake: Path, at_most: int = 1_000_000) -> None:
        land_kafka(spark, card, self.config, lake, at_most)


@pytest.fixture
def topic(kafka) -> Iterator[Topic]:
    topic = Topic(kafka)
    yield topic
    topic.admin.close()


def click(number: int, time_ms: int, query: str | None = None) -> Click:
    return Click(event_id=f"e{number}", query_id=query or f"u{number % 7}", item_id=f"s{number}", event_time=time_ms)


def events(spark, card, lake: Path) -> list[str]:
    return sorted(row.event_id for row in read_lake(spark, card, lake).select("event_id").collect())


def state(spark, card, lake: Path, day: date) -> list[str]:
    rows = read_lake(spark, card, lake).where(in_state(lake, day)).select("event_id").collect()
    return sorted(row.event_id for row in rows)


def delivered(topic: Topic, offsets: dict[int, int]) -> list[str]:
    """The valid events that a stream gets which starts at some offsets, each event once."""
    consumer = free_consumer(topic.config)
    partitions = [TopicPartition(topic.name, p) for p in range(2)]
    consumer.assign(partitions)
    for partition in partitions:
        consumer.seek(partition, offsets.get(partition.partition, 0))
    ends, seen = consumer.end_offsets(partitions), []
    while any(consumer.position(p) < ends[p] for p in partitions):
        seen += [r for batch in consumer.poll(timeout_ms=200).values() for r in batch]
    close_quietly(consumer)
    verdicts = ClickValidator(2, 60_000)(Record(r.key, r.value, r.partition, r.timestamp) for r in seen)
    return sorted({c.event_id for c in verdicts if isinstance(c, Click)})


def test_landing_again_after_late_and_repeated_and_unreadable_records_changes_nothing(spark, card, topic, tmp_path):
    lake = tmp_path / "lake"
    topic.send([click(1, FIRST_MS + DAY), click(2, FIRST_MS + 2 * DAY)])
    topic.send_raw([(b"u1", b"not json", 0)])
    topic.land(spark, card, lake)
    assert events(spark, card, lake) == ["e1", "e2"]
    topic.send([click(3, FIRST_MS), click(2, FIRST_MS + 2 * DAY)])  # late; repeated
    for _ in range(2):
        topic.land(spark, card, lake, at_most=2)
    assert events(spark, card, lake) == ["e1", "e2", "e3"]
    days = {path.name for path in lake.glob("landing=*/date=*")}
    assert days == {"date=2023-11-15", "date=2023-11-16", "date=2023-11-17"}, "a late click lies under its own day"


NIGHTS = [date(2023, 11, 16 + k) for k in range(3)]


def three_days(spark, card, topic, lake: Path, seed: int) -> tuple[list[Click], list[dict[int, int]]]:
    """Three days with a minute of jitter, phones that are an hour ahead, and late clicks, landed after each day; the
    clicks in the order of their arrival, and the cut of each night."""
    rng, n = np.random.default_rng(seed), 400
    arrival, skew = disordered(n, 3 * DAY, rng)
    times = np.maximum(FIRST_MS, FIRST_MS + arrival + skew).tolist()
    clicks = [click(k, time_ms) for k, time_ms in enumerate(times)]
    ends = [0, *np.searchsorted(arrival, [DAY, 2 * DAY]).tolist(), n]
    cuts = []
    for night, start, end in zip(NIGHTS, ends, ends[1:], strict=False):
        topic.send(clicks[start:end])
        topic.land(spark, card, lake, at_most=150)
        cuts.append(offsets_at(lake, night))
    return clicks, cuts


@pytest.mark.parametrize("seed", range(3))
def test_the_state_of_each_night_and_the_stream_from_its_cut_have_each_click_once(spark, card, topic, tmp_path, seed):
    lake = tmp_path / "lake"
    clicks, cuts = three_days(spark, card, topic, lake, seed)
    everything = sorted(c.event_id for c in clicks)
    for night, cut in zip(NIGHTS, cuts, strict=True):
        assert offsets_at(lake, night) == cut, "a night that is run again has the cut that it had"
        assert sorted(state(spark, card, lake, night) + delivered(topic, cut)) == everything
    assert sum(cuts[0].values()) < sum(cuts[-1].values())


def test_an_updater_that_starts_at_the_cut_of_a_night_comes_to_each_click_once(spark, card, topic, tmp_path):
    lake = tmp_path / "lake"
    clicks, cuts = three_days(spark, card, topic, lake, 3)
    by_id = {c.event_id: c for c in clicks}
    ids = sorted({c.query_id for c in clicks}), sorted({c.item_id for c in clicks})
    for number, (night, cut) in enumerate(zip(NIGHTS, cuts, strict=True)):
        bundle = made_up_bundle(*ids, seed=number)
        bundle.manifest.offsets = cut
        counted = truth([by_id[event] for event in state(spark, card, lake, night)])
        for table, counts in zip((bundle.queries, bundle.items), counted, strict=True):
            table.columns["update_count"] = np.array([counts[id_] for id_ in table.ids])
        made_up_home(home := tmp_path / f"home{number}", bundle)
        with running(bundle, open_store(home), topic.config, feast_sink=False):
            for side, everything, there in zip(("query", "item"), truth(clicks), counted, strict=True):
                folds(topic.config, side, bundle, everything - there, "each click is in the state or in the stream")


def test_of_an_event_that_is_written_on_both_sides_of_a_cut_the_state_has_the_first(spark, card, topic, tmp_path):
    lake, first = tmp_path / "lake", click(1, FIRST_MS)
    topic.send([first])
    topic.land(spark, card, lake)
    topic.send([first, click(2, FIRST_MS + DAY)])
    topic.land(spark, card, lake)
    assert state(spark, card, lake, date(2023, 11, 15)) == ["e1"]


def test_a_lake_whose_ledger_is_lost_goes_on_behind_its_rows(spark, card, topic, tmp_path):
    lake = tmp_path / "lake"
    topic.send([click(n, FIRST_MS + n) for n in range(20)])
    topic.land(spark, card, lake)
    (lake / "kafka.json").unlink()
    topic.send([click(n, FIRST_MS + n) for n in range(20, 30)])
    topic.land(spark, card, lake)
    assert events(spark, card, lake) == sorted(f"e{n}" for n in range(30))
    assert sum(offsets_at(lake, date(2030, 1, 1)).values()) == 30


def test_a_topic_that_is_made_anew_is_landed_from_its_beginning_and_its_stream_starts_there(
    spark, card, topic, tmp_path
):
    lake, night = tmp_path / "lake", date(2023, 11, 15)
    topic.send([click(n, FIRST_MS + n) for n in range(20)])
    topic.land(spark, card, lake)
    topic.make_anew()
    topic.send([click(n, FIRST_MS + n) for n in range(20, 25)])
    topic.land(spark, card, lake)
    assert events(spark, card, lake) == sorted(f"e{n}" for n in range(25))
    assert offsets_at(lake, night) == {0: 0, 1: 0}, "what the stream delivers now begins with the new topic"
    assert sorted(state(spark, card, lake, night) + delivered(topic, {})) == events(spark, card, lake)


def test_records_that_kafka_deleted_before_they_were_landed_are_a_gap_that_is_named(spark, card, topic, tmp_path):
    lake = tmp_path / "lake"
    topic.send([click(n, FIRST_MS + n) for n in range(10)])
    topic.land(spark, card, lake)
    before = dict(Ledger.load(lake).next)
    topic.send([click(n, FIRST_MS + n) for n in range(10, 30)])
    gone = {TopicPartition(topic.name, p): at + 3 for p, at in before.items()}
    topic.admin.delete_records(gone)
    topic.land(spark, card, lake)
    gaps = Ledger.load(lake).gaps
    assert [(gap.partition, gap.start, gap.end) for gap in gaps] == [(p, before[p], before[p] + 3) for p in (0, 1)]
    assert len(events(spark, card, lake)) == 30 - 6


ODD = {
    "a numeric id": {"item_id": 7},
    "a bool in the context": {"context": {"a": True}},
    "an object in the context": {"context": {"a": {"b": 1}}},
    "a day in the future": {"event_time": int(time.time() * 1000) + DAY},
    "an infinite number": {"context": {"a": float("inf")}},
}


def test_the_lake_lands_exactly_what_the_stream_counts(spark, card, topic, tmp_path):
    good = {"event_id": "g", "query_id": "u1", "item_id": "s1", "event_time": FIRST_MS}
    home = int(partitions_of(["u1"], 2)[0])
    values = [json.dumps({**good, "event_id": name, **change}).encode() for name, change in ODD.items()]
    text = json.dumps(good).encode()
    records: list = [(b"u1", value, home) for value in values]
    records += [(b"u1", text.replace(b'"', b"'"), home), (b"u1", text + b" x", home), (b"u1", text + text, home)]
    records += [(None, text, home), (b"u2", text, home), (b'"u1"', text, home), (b"u1", text, 1 - home)]
    topic.send_raw(records)
    topic.send([click(1, FIRST_MS)])
    topic.land(spark, card, tmp_path / "lake")
    assert events(spark, card, tmp_path / "lake") == ["e1"] == delivered(topic, {})


def _wait_for_landings(process: subprocess.Popen, lake: Path, count: int) -> None:
    deadline = time.monotonic() + 240
    while len(list(lake.glob("landing=*"))) < count:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.slow
def test_a_follower_that_is_killed_in_the_middle_loses_no_click_and_lands_none_twice(spark, tmp_path, topic, dat):
    card_file = write_market(tmp_path)
    card, home = load_card(card_file), tmp_path / "home"
    lake = home / "lake" / "clicks"
    topic.send([click(n, FIRST_MS + n * 300_000) for n in range(600)])
    verb, batch = ["lake", "--data", card_file, "--home", home], {"DAT_NIGHT__LAKE_BATCH": "100"}
    process = dat(*verb, "--follow", "--every", "1 second", **batch)
    _wait_for_landings(process, lake, 2)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert 2 <= len(list(lake.glob("landing=*"))) < 6, "the kill should fall in the middle"
    process = dat(*verb, **batch)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert Counter(events(spark, card, lake)) == Counter(f"e{n}" for n in range(600))
    assert all(len(list(lake.glob(f"landing=*/{path.name}"))) == 1 for path in lake.glob("landing=*/date=*"))


@pytest.mark.parametrize("how", ["PLAIN", "mTLS"])
def test_clicks_are_landed_through_a_secure_listener_by_the_updaters_own_settings(spark, card, secure, tmp_path, how):  # noqa: F811
    prefix = f"lake-{how}."
    create_topics(secure.admin.model_copy(update={"prefix": prefix}), PARTITIONS)
    grant(secure.admin, (TOPIC, prefix, READ), (TOPIC, prefix, WRITE))
    config = secure.clients[how].model_copy(update={"prefix": prefix})
    eventually(lambda: exist(config), "the rights hold")
    produce(config, [click(n, FIRST_MS + n) for n in range(20)])
    land_kafka(spark, card, config, tmp_path / "lake")
    assert events(spark, card, tmp_path / "lake") == sorted(f"e{n}" for n in range(20))
