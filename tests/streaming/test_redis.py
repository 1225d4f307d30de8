"""The online store on a real Redis: as a cluster, and away for a while."""

import shutil

import pytest

from cli.redis import LocalRedis
from feature_repo.store import open_store
from streaming.config import UpdaterConfig
from tests.streaming.loop import eventually, produce, running, some_clicks
from tests.streaming.test_swap import in_store
from tests.tiny import tiny_bundle, tiny_store

needs_redis = pytest.mark.skipif(not shutil.which("redis-server"), reason="needs redis-server on the PATH")


@needs_redis
def test_a_cluster_has_every_click(bootstrap, tmp_path):
    with LocalRedis(tmp_path / "redis", cluster=True) as redis:
        tiny_store(tmp_path, queries=9, items=12)  # registers the views
        store, bundle, clicks = (
            open_store(tmp_path, f"cluster:{redis.address}"),
            tiny_bundle("cluster"),
            some_clicks(50),
        )
        with running(bundle, store, UpdaterConfig(bootstrap=bootstrap)):
            produce(bootstrap, clicks)
            eventually(lambda: in_store(store, bundle, clicks), "the cluster has every click")


@needs_redis
def test_a_redis_that_was_away_has_every_click_in_the_end(bootstrap, tmp_path):
    with LocalRedis(tmp_path / "redis", keep=True) as redis:
        tiny_store(tmp_path, queries=9, items=12)
        store, bundle, clicks = open_store(tmp_path, redis.address), tiny_bundle("away"), some_clicks(90)
        with running(bundle, store, UpdaterConfig(bootstrap=bootstrap)):
            produce(bootstrap, clicks[:30])
            eventually(lambda: in_store(store, bundle, clicks[:30]), "Redis has the first clicks")
            redis.stop()
            produce(bootstrap, clicks[30:60])
            redis.start()
            produce(bootstrap, clicks[60:])
            eventually(lambda: in_store(store, bundle, clicks), "Redis has what came while it was away", 60)
