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
from spark_jobs.publish import materialise_profiles
from tests.market import write_market

NIGHT, CLICK = pd.Timestamp("2023-11-18", tz="UTC"), pd.Timestamp("2023-11-18 09:00", tz="UTC")


def _history(store: FeatureStore, home: Path, view: str, row: dict) -> None:
    folder = home / "offline" / view / "part=all"
    folder.mkdir(parents=True)
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
        _history(store, home, "query_profile", {"query_id": "u1", "city": "Lyon", "age": 21.0, "known": 1})
        _history(
            store, home, "query_activity", {"query_id": "u1", "clicks": 3, "counters": [1.0, 2.0], "last_click": 1}
        )
        fresh = {"query_id": "u1", "clicks": 9, "counters": [5.0, 6.0], "last_click": 2}
        pushed = pd.DataFrame([fresh | {"event_timestamp": CLICK, "created_timestamp": CLICK}])
        store.push("query_activity_push", pushed, to=PushMode.ONLINE)
        for _ in range(2):  # a night that is run again
            materialise_profiles(store)
            names = ["query_profile:city", "query_profile:age", "query_activity:clicks", "query_activity:counters"]
            found = store.get_online_features(names, [{"query_id": "u1"}]).to_dict()
            assert found["city"] == ["Lyon"] and found["age"] == [21.0]
            assert found["clicks"] == [9] and found["counters"] == [[5.0, 6.0]]
