"""The online store on a real Redis: as a cluster, and away for a while."""

import asyncio
import contextlib
import signal
import time

import numpy as np
import pyarrow as pa
import pytest
import redis

from devstack.redis import LocalRedis
from feature_repo.store import open_store
from serving.online_store import OnlineStore, StoreDown
from streaming.kafka.records import QUERY_STATE
from streaming.sink.online_writer import OnlineWriter
from tests.streaming.loop import eventually, folds, produce, running, some_clicks, truth, updater_config
from tests.streaming.test_feast_sink import in_store
from tests.tiny import tiny_bundle, tiny_store

pytestmark = pytest.mark.long


def test_a_cluster_has_every_click(kafka, local_redis, tmp_path):
    with local_redis(cluster=True) as redis:
        tiny_store(tmp_path, queries=9, items=12)  # registers the views
        store, bundle, clicks = (
            open_store(tmp_path, f"cluster:{redis.address}"),
            tiny_bundle("cluster"),
            some_clicks(50),
        )
        with running(bundle, store, updater_config(kafka)):
            produce(kafka, clicks)
            eventually(lambda: in_store(store, bundle, clicks), "the cluster has every click")


def test_after_a_failover_sink_and_service_go_on_with_the_master_that_the_sentinels_name(local_redis, tmp_path):
    conf = tmp_path / "sentinel.conf"
    with contextlib.ExitStack() as servers:
        master = servers.enter_context(local_redis())
        options = ["--replicaof", "127.0.0.1", str(master.port)]
        replica = servers.enter_context(LocalRedis(tmp_path / "replica", options=options))
        conf.write_text(
            f"sentinel monitor shop 127.0.0.1 {master.port} 1\nsentinel down-after-milliseconds shop 500\n"
            "sentinel failover-timeout shop 3000\n"
        )
        sentinel = servers.enter_context(LocalRedis(tmp_path / "sentinel", options=[str(conf), "--sentinel"]))
        asked = redis.Redis(port=sentinel.port, decode_responses=True)
        eventually(lambda: len(asked.sentinel_slaves("shop")) == 1, "the sentinel knows the replica")
        tiny_store(tmp_path)
        store = open_store(tmp_path, f"sentinel:shop@{sentinel.address}")
        writer = OnlineWriter(store, "failover")

        def write(count: int) -> bool:
            row = {"id": "q1", "a": [0.5], "folded": count, "clicks": count, "counters": [], "last_click": 0}
            rows = pa.RecordBatch.from_pylist([row | {"history": []}], QUERY_STATE)
            try:
                writer.write("query", rows, np.array([1_795_000_000_000_000 + count]))
            except redis.RedisError:
                return False
            return True

        async def read() -> list[int]:
            reader = OnlineStore(store, 2.0)
            await reader.start()
            seen = []
            for step in range(2):
                for _ in range(600):  # a minute: the circuit is open until a look succeeds
                    with contextlib.suppress(StoreDown):
                        seen.append((await reader.queries(["q1"]))["query_augmented__folded"][0])
                        break
                    await asyncio.sleep(0.1)
                if not step:
                    await asyncio.to_thread(master.stop)
                    await asyncio.to_thread(eventually, lambda: write(2), "the new master takes rows")
                    assert asked.sentinel_get_master_addr_by_name("shop") == ("127.0.0.1", replica.port)
            await reader.close()
            return seen

        assert write(1)
        assert asyncio.run(read()) == [1, 2]


def test_a_redis_that_was_away_has_every_click_in_the_end(kafka, local_redis, tmp_path):
    with local_redis(keep=True) as redis:
        tiny_store(tmp_path, queries=9, items=12)
        store, bundle, clicks = open_store(tmp_path, redis.address), tiny_bundle("away"), some_clicks(90)
        with running(bundle, store, updater_config(kafka)):
            produce(kafka, clicks[:30])
            eventually(lambda: in_store(store, bundle, clicks[:30]), "Redis has the first clicks")
            redis.stop()
            produce(kafka, clicks[30:60])
            redis.start()
            produce(kafka, clicks[60:])
            eventually(lambda: in_store(store, bundle, clicks), "Redis has what came while it was away", 60)


def test_a_redis_that_comes_back_empty_is_refilled(kafka, local_redis, tmp_path):
    with local_redis(keep=False) as redis:
        tiny_store(tmp_path, queries=9, items=12)
        store, bundle, clicks = open_store(tmp_path, redis.address), tiny_bundle("emptied"), some_clicks(60)
        with running(bundle, store, updater_config(kafka, monitor_s=0.2)):
            produce(kafka, clicks)
            eventually(lambda: in_store(store, bundle, clicks), "Redis has all clicks")
            redis.stop()
            redis.start()
            eventually(lambda: in_store(store, bundle, clicks), "Redis has them again", 60)


def test_late_rows_are_refused_and_rows_are_read_through_feast(local_redis, tmp_path):
    with local_redis() as redis:
        tiny_store(tmp_path)
        store, bundle = open_store(tmp_path, redis.address), tiny_bundle("late")
        writer = OnlineWriter(store, bundle.version)
        for count, stamp in ((1, 100), (3, 300), (2, 200), (9, 300)):
            row = {"id": "é", "a": [0.5, -1.5], "folded": count, "clicks": -count, "counters": [], "last_click": 0}
            rows = pa.RecordBatch.from_pylist([row | {"history": ["x", "ü"]}], QUERY_STATE)
            writer.write("query", rows, np.array([1_795_000_000_000_000 + stamp]))
        names = ("query_augmented:a", "query_augmented:folded", "query_augmented:bundle", "query_activity:clicks")
        names += ("query_activity:counters", "query_activity:last_click", "query_history:history")
        answer = store.get_online_features(list(names), [{"query_id": "é"}]).to_dict()
        assert [answer[name.split(":")[1]][0] for name in names] == [
            [0.5, -1.5], 3, "late", -3, [], 0, ["x", "ü"]
        ]  # fmt: skip


@pytest.mark.flaky(reruns=2)
def test_a_redis_that_hangs_delays_no_click_of_known_or_new_ids(kafka, local_redis, tmp_path):
    with local_redis() as redis:
        tiny_store(tmp_path, queries=9, items=12)
        store, bundle, clicks = open_store(tmp_path, redis.address), tiny_bundle("hangs"), some_clicks(200)
        with running(bundle, store, updater_config(kafka, batch_clicks=20)):
            redis.process.send_signal(signal.SIGSTOP)
            try:
                began = time.monotonic()
                produce(kafka, clicks)
                by_query, by_item = truth(clicks)
                folds(kafka, "query", bundle, by_query, "the clicks are folded")
                folds(kafka, "item", bundle, by_item, "and the signals")
                assert time.monotonic() - began < 15
            finally:
                redis.process.send_signal(signal.SIGCONT)
            eventually(lambda: in_store(store, bundle, clicks), "Redis has all of them in the end", 60)
