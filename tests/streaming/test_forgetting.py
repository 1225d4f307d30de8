"""A forgotten query: what is of before its moment never counts again, whatever is restored, replayed or late."""

import asyncio
import contextlib

import numpy as np
import pandas as pd
import pytest
from kafka import KafkaProducer, TopicPartition
from kafka.admin import KafkaAdminClient

from feature_repo.store import open_store
from model.click import Click, ClickValidator, Forget, InvalidClick, Record
from model.forgetting import Forgotten, remembered
from model.ids import is_nobody
from model.partitioner import partitions_of
from model.state import EntityState
from serving.redis_reader import RedisReader
from streaming.forgetting import ForgetWriter, read_forgotten, without
from streaming.kafka.records import UnknownFormat
from streaming.sink.online_writer import VIEWS, OnlineWriter
from streaming.sink.rows import seeds
from tests.conftest import PARTITIONS
from tests.streaming.loop import committed, eventually, produce, running, some_clicks, updater_config
from tests.streaming.test_feast_sink import online
from tests.tiny import CUT_MS, tiny_bundle, tiny_store

MOMENT = CUT_MS + 3_600_000


@pytest.fixture
def store(tmp_path):
    return tiny_store(tmp_path, queries=9, items=12)


def clicks_of(query_id: str, items: list[int], start: int, name: str) -> list[Click]:
    return [
        Click(event_id=f"{name}{k}", query_id=query_id, item_id=f"i{item}", event_time=start + 1_000 * k)
        for k, item in enumerate(items)
    ]


def forget(kafka, *ids: str, before: int = MOMENT) -> dict[str, Forgotten]:
    writer = ForgetWriter(kafka)
    writer.hide(ids, before)
    listed, _ = writer.forget(ids, before)
    writer.close()
    return listed


def counted(kafka, bundle, query_id: str) -> tuple[int, list[str]]:
    row = committed(kafka, "query", bundle).get(query_id)
    return (-1, []) if row is None else (row["clicks"], row["history"])


def settled(kafka, bundle, query_id: str, clicks: int, history: list[str]) -> None:
    eventually(lambda: counted(kafka, bundle, query_id) == (clicks, history), f"{query_id} has {clicks} clicks")


def in_store(store, query_id: str) -> dict:
    return next(iter(online(store, "query", [query_id])))


OLD = clicks_of("q0", [1, 2, 3], CUT_MS + 1_000, "old")
LATE = clicks_of("q0", [4, 5], CUT_MS + 10_000, "late")
NEW = clicks_of("q0", [6, 7], MOMENT, "new")


@pytest.mark.parametrize("at_once", [False, True], ids=["as they come", "in one batch"])
def test_clicks_of_before_the_moment_are_gone_and_those_after_it_are_a_new_visitors(kafka, store, at_once):
    """Also late ones, after a restart, and for a bundle that replays all of it; a stranger with the same clicks is told
    apart by nothing."""
    bundle, config = tiny_bundle(f"forget-{at_once}"), updater_config(kafka)
    others = some_clicks(40, queries=6, new=0, seed=4)
    others = [click for click in others if click.query_id != "q0"]
    stranger = [click.model_copy(update={"query_id": "stranger", "event_id": f"s{click.event_id}"}) for click in NEW]
    if at_once:
        produce(kafka, [*others, *OLD])
        forget(kafka, "q0")
        produce(kafka, [*LATE, *NEW])
    with running(bundle, store, config):
        if not at_once:
            produce(kafka, [*others, *OLD])
            eventually(lambda: counted(kafka, bundle, "q0")[0] == 6, "its old clicks count")
            forget(kafka, "q0")
            settled(kafka, bundle, "q0", 0, [])
            eventually(lambda: in_store(store, "q0")["clicks"] is None, "the store has no row of it")
            produce(kafka, LATE)
            produce(kafka, NEW[:1])
            settled(kafka, bundle, "q0", 1, ["i6"])
            produce(kafka, NEW[1:])
        settled(kafka, bundle, "q0", 2, ["i6", "i7"])
        produce(kafka, stranger)
        settled(kafka, bundle, "stranger", 2, ["i6", "i7"])
    with running(bundle, store, config):  # restored from bundle and changelog
        produce(kafka, clicks_of("q0", [8], CUT_MS + 20_000, "later"))
        produce(kafka, clicks_of("q0", [1], MOMENT + 60_000, "newer"))
        settled(kafka, bundle, "q0", 3, ["i6", "i7", "i1"])
    again = tiny_bundle(f"forget-again-{at_once}", seed=3)
    with running(again, store, config):  # replays all clicks since its cut
        settled(kafka, again, "q0", 3, ["i6", "i7", "i1"])
        eventually(lambda: in_store(store, "q0")["clicks"] == 3, "the store has the new visitor's row")
    signalled = committed(kafka, "item", again)
    assert {"i4", "i5", "i8"} & set(signalled) <= {click.item_id for click in others}
    both = [committed(kafka, "query", bundle)[id_] for id_ in ("q0", "stranger")]
    assert [row["clicks"] for row in both] == [3, 2] and both[0]["history"][:2] == both[1]["history"]


def test_other_queries_of_the_batch_are_as_if_nobody_had_been_forgotten(kafka, store):
    bundle = tiny_bundle("others", frozen_items=True)
    others = [click for click in some_clicks(60, new=0, seed=5) if click.query_id != "q0"]
    produce(kafka, others[:20])
    forget(kafka, "q0", "never-seen")
    produce(kafka, others[20:])
    expected = {}
    for click in others:
        expected[click.query_id] = expected.get(click.query_id, 0) + 1
    before = dict(zip(bundle.queries.ids, bundle.queries.clicks.tolist(), strict=True))
    with running(bundle, store, updater_config(kafka), feast_sink=False):
        eventually(
            lambda: all(counted(kafka, bundle, id_)[0] == before[id_] + n for id_, n in expected.items()), "all count"
        )
        settled(kafka, bundle, "q0", 0, [])
        settled(kafka, bundle, "never-seen", 0, [])


def test_a_bundle_that_still_has_the_query_is_read_without_it_where_kafka_has_deleted_the_moment(kafka, store):
    """A rollback after the topic's retention: only the list knows."""
    bundle, config = tiny_bundle("rolled-back"), updater_config(kafka)
    produce(kafka, OLD)
    place = forget(kafka, "q0")["q0"]
    admin = KafkaAdminClient(**kafka.client)
    admin.delete_records({TopicPartition(kafka.topics.clicks, place.partition): place.offset + 1})
    admin.close()
    with running(bundle, store, config):
        produce(kafka, [*LATE, *NEW])
        settled(kafka, bundle, "q0", 2, ["i6", "i7"])
        eventually(lambda: in_store(store, "q0")["clicks"] == 2, "the store has the new visitor's row")
    assert is_nobody(without(bundle, read_forgotten(kafka)).queries.ids[0])
    later = tiny_bundle("later", offsets=dict.fromkeys(range(PARTITIONS), 10))  # its state is of after the moment
    assert without(later, read_forgotten(kafka)) is later


def test_a_store_is_left_without_the_row_when_it_is_filled_anew(kafka, store, tmp_path):
    bundle, config = tiny_bundle("refilled"), updater_config(kafka)
    with running(bundle, store, config):
        produce(kafka, OLD)
        eventually(lambda: counted(kafka, bundle, "q0")[0] == 6, "its old clicks count")
        forget(kafka, "q0")
        settled(kafka, bundle, "q0", 0, [])
    empty = tiny_store(tmp_path / "empty", queries=9, items=12)
    with running(bundle, empty, config):
        eventually(lambda: in_store(empty, "q2")["clicks"] == 3, "the store is filled")
        assert in_store(empty, "q0")["clicks"] is None


def test_a_record_that_forgets_is_judged_as_a_click_is():
    validate = ClickValidator(PARTITIONS, 60_000)
    said = Forget(query_id="q0", forget_before=MOMENT).model_dump_json().encode()
    home = int(partitions_of(["q0"], PARTITIONS, "murmur2")[0])
    verdicts = validate(
        [
            Record(b"q0", said, home, MOMENT),
            Record(b"q1", said, home, MOMENT),
            Record(b"q0", said, 1 - home, MOMENT),
            Record(b"q0", said, home, MOMENT - 100_000),
            Record(b"q0", said[:-1] + b', "item_id": "i1"}', home, MOMENT),
        ]
    )
    assert verdicts[0] == Forget(query_id="q0", forget_before=MOMENT)
    assert [v.kind for v in verdicts[1:] if isinstance(v, InvalidClick)] == ["key", "partition", "clock", "field"]


def test_the_list_of_a_later_release_is_not_passed_over(kafka):
    producer = KafkaProducer(**kafka.client)
    for value in (b'{"before": 5}', b'{"before": 7, "format": 1, "new": 0}', b"not JSON"):
        producer.send(kafka.topics.forgotten, value, key=b"q1").get(10)
    assert read_forgotten(kafka) == {"q1": Forgotten(before=7)}
    place = producer.send(kafka.topics.forgotten, b'{"before": 9, "format": 2}', key=b"q1").get(10)
    producer.close()
    where = rf"{kafka.topics.forgotten}-{place.partition} at {place.offset}: it has format 2, and this release reads 1"
    with pytest.raises(UnknownFormat, match=where):
        read_forgotten(kafka)


def test_a_click_is_forgotten_by_its_place_or_by_its_time():
    known = {"u": Forgotten(before=100, partition=0, offset=5), "half": Forgotten(before=100)}
    kept = remembered(
        known, ["u", "u", "u", "u", "half", "half", "x"], [200, 50, 200, 200, 50, 200, 0], [0, 0, 0, 1, 0, 0, 0],
        [4, 9, 6, 4, 9, 4, 0],
    )  # fmt: skip
    assert kept.tolist() == [False, False, True, True, False, True, True]


def test_a_state_forgets_rows_in_place_and_gives_the_id_a_new_one():
    state = EntityState(["a", "b"], clicks=np.array([3, 4]), recent_items=np.array([[1], [2]], np.int32))
    assert state.forget(["b", "b", "x"]).tolist() == [1]
    assert state.rows(["a", "b"]).tolist() == [0, -1] and state.clicks.tolist() == [3, 0]
    assert state.recent_items.tolist() == [[1], [-1]]
    assert state.add(["b", "c"]).tolist() == [2, 3] and state.ids[2:] == ["b", "c"]
    assert state.forget(["b"]).tolist() == [2] and state.add(["d", "b"]).tolist() == [4, 5]
    assert state.ids == ["a", "dat-forgotten 1", "dat-forgotten 2", "c", "d", "b"]
    assert state.embedding_rows(state.rows(["b"])).tolist() == [0]


@pytest.mark.parametrize("kind", ["sqlite", "redis"])
def test_values_are_gone_from_the_online_store_and_older_ones_stay_out(store, local_redis, tmp_path, kind):
    """The catalogue's as well; whoever writes with an older stamp, such as a process that was frozen, is refused."""
    with local_redis() if kind == "redis" else contextlib.nullcontext() as redis:
        if redis:
            store = open_store(tmp_path, redis.address)
            frame = pd.DataFrame({"query_id": ["q0", "q2"], "city": ["Oslo"] * 2, "age": [20.0] * 2, "known": [1] * 2})
            frame["event_timestamp"] = frame["created_timestamp"] = pd.Timestamp(CUT_MS, unit="ms", tz="UTC")
            store.write_to_online_store("query_profile", frame)
        bundle = tiny_bundle("stored")
        writer = OnlineWriter(store, bundle.version)
        rows = next(seeds(bundle, "query", 0, lambda rows, ids: np.zeros(len(rows), int), 100))
        names = [f"{view}:{name}" for view, of in VIEWS["query"].items() for name in of]
        names += ["query_profile:known", "query_profile:city"]
        stamp = 1_700_000_000_000_000

        def write(at: int) -> None:
            writer.write("query", rows, np.full(len(rows), stamp + at))

        def values(query_id: str) -> int:
            found = store.get_online_features(features=names, entity_rows=[{"query_id": query_id}]).to_dict()
            return sum(value != [None] for name, value in found.items() if name != "query_id")

        write(10)
        assert values("q0") == values("q2") == len(names)
        writer.erase(["q0", "never-seen"])
        assert (values("q0"), values("q2"), values("never-seen")) == (0, len(names), 0)
        write(5)
        assert values("q0") == 0
        writer.clear("query", ["q0"], np.array([stamp + 20]))
        write(15)
        assert (values("q0"), values("q2")) == (0, len(names))
        write(30)
        assert values("q0") == len(names) - 2, "but for the catalogue's"
        if redis:
            reader = RedisReader(store.config)
            columns = asyncio.run(reader.read(["query_profile:known"], "query_id", ["q0", "q2"]))
            assert columns == {"query_profile__known": [None, 1]}
