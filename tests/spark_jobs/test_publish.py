"""What the night loads online: the catalogues, and nothing over what the stream has written."""

import shutil
from contextlib import nullcontext
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast import FeatureStore
from feast.data_source import PushMode

from cli.redis import LocalRedis
from feature_repo.card import load_card
from feature_repo.store import history_schema, open_store, register
from spark_jobs.publish import load_profiles
from tests.market import write_market

NIGHT, CLICK = pd.Timestamp("2023-11-18", tz="UTC"), pd.Timestamp("2023-11-18 09:00", tz="UTC")


def _history(store: FeatureStore, home: Path, view: str, row: dict) -> None:
    folder = home / "offline" / view / "part=all"
    folder.mkdir(parents=True, exist_ok=True)
    stamped = row | {"event_timestamp": NIGHT.to_pydatetime(), "created_timestamp": NIGHT.to_pydatetime()}
    table = pa.Table.from_pylist([stamped], schema=history_schema(store.get_feature_view(view)))
    pq.write_table(table, folder / "part.parquet")


@pytest.mark.parametrize("online", ["sqlite", "redis"])
def test_the_catalogues_are_loaded_and_fresher_activity_of_the_stream_stays(tmp_path: Path, online: str):
    if online == "redis" and not shutil.which("redis-server"):
        pytest.skip("needs a redis-server on the PATH")
    card, home = load_card(write_market(tmp_path, clicks=50)), tmp_path / "home"
    with LocalRedis(tmp_path / "redis") if online == "redis" else nullcontext() as redis:
        store = open_store(home, redis.address if redis else None)
        register(store, card, home)
        _history(store, home, "item_profile", {"item_id": "s1", "name": "Shop", "kinds": [], "opened": 1, "known": 1})
        _history(
            store, home, "query_activity", {"query_id": "u1", "clicks": 3, "counters": [1.0, 2.0], "last_click": 1}
        )
        fresh = {"query_id": "u1", "clicks": 9, "counters": [5.0, 6.0], "last_click": 2}
        pushed = pd.DataFrame([fresh | {"event_timestamp": CLICK, "created_timestamp": CLICK}])
        store.push("query_activity_push", pushed, to=PushMode.ONLINE)
        names = ["query_profile:city", "query_profile:age", "query_activity:clicks", "query_activity:counters"]
        for city, loaded in (("Lyon", 2), ("Lyon", 0), ("Oslo", 1)):  # a night, run again, and one that knows better
            _history(store, home, "query_profile", {"query_id": "u1", "city": city, "age": 21.0, "known": 1})
            assert load_profiles(store, home / "offline", home / "loaded") == loaded
            found = store.get_online_features(names, [{"query_id": "u1"}]).to_dict()
            assert found["city"] == [city] and found["age"] == [21.0]
            assert found["clicks"] == [9] and found["counters"] == [[5.0, 6.0]]
        assert load_profiles(store, home / "offline", home / "loaded", everything=True) == 2


def test_an_online_store_that_is_another_one_gets_all_rows(tmp_path: Path):
    card, home = load_card(write_market(tmp_path, clicks=50)), tmp_path / "home"
    for name in ("one", "two"):
        store = open_store(home)
        store.config.online_store.path = str(tmp_path / f"{name}.db")
        register(store, card, home)
        (home / "registered.json").unlink()
        shop = {"item_id": "s1", "name": "Shop", "kinds": [], "opened": None, "known": 1}
        _history(store, home, "item_profile", shop)
        _history(store, home, "query_profile", {"query_id": "u1", "city": None, "age": None, "known": 1})
        assert [load_profiles(store, home / "offline", home / "loaded") for _ in range(2)] == [2, 0]
