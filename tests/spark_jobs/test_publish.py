"""What the night loads online: the catalogues, and nothing over what the stream has written."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast import FeatureStore
from feast.data_source import PushMode

from feature_repo.card import load_card
from feature_repo.store import history_schema, open_store, register
from model.bundle_store import BundleStore
from spark_jobs.publish import load_profiles, prune_states, write_states
from tests.market import write_market
from tests.tiny import CUT_MS, tiny_bundle

NIGHT, CLICK = pd.Timestamp("2023-11-18", tz="UTC"), pd.Timestamp("2023-11-18 09:00", tz="UTC")


def _history(store: FeatureStore, home: Path, view: str, row: dict) -> None:
    folder = home / "offline" / view / "part=all"
    folder.mkdir(parents=True, exist_ok=True)
    stamped = row | {"event_timestamp": NIGHT.to_pydatetime(), "created_timestamp": NIGHT.to_pydatetime()}
    table = pa.Table.from_pylist([stamped], schema=history_schema(store.get_feature_view(view)))
    pq.write_table(table, folder / "part.parquet")


@pytest.fixture(params=["sqlite", "redis"])
def online(request: pytest.FixtureRequest) -> Iterator[str | None]:
    """The address of the online store's server; None: it is a file."""
    if request.param == "sqlite":
        yield None
    else:
        with request.getfixturevalue("local_redis")() as redis:
            yield redis.address


def test_the_catalogues_are_loaded_and_fresher_activity_of_the_stream_stays(tmp_path: Path, online: str | None):
    card, home = load_card(write_market(tmp_path, clicks=50)), tmp_path / "home"
    store = open_store(home, online)
    register(store, card, home)
    _history(store, home, "item_profile", {"item_id": "s1", "name": "Shop", "kinds": [], "opened": 1, "known": 1})
    _history(store, home, "query_activity", {"query_id": "u1", "clicks": 3, "counters": [1.0, 2.0], "last_click": 1})
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


@pytest.mark.parametrize("after_ms", [0, 5_000], ids=["the cut", "a click after it"])
def test_a_state_is_known_from_the_last_moment_that_it_holds(tmp_path: Path, after_ms: int):
    bundle = tiny_bundle()
    bundle.queries.columns["as_of"][:] = CUT_MS + after_ms
    write_states(bundle, tmp_path)
    for view in ("query_augmented", "item_augmented", "query_history"):
        rows = pq.read_table(tmp_path / view / f"part={bundle.version}", partitioning=None)
        for name in ("event_timestamp", "created_timestamp"):
            assert rows[name].cast(pa.int64()).unique().to_pylist() == [1000 * (CUT_MS + after_ms)]


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


def test_the_history_has_one_vector_space_a_moment_and_none_of_a_bundle_that_is_gone(tmp_path: Path):
    store, offline = BundleStore(tmp_path / "bundles"), tmp_path / "offline"
    for day, version in ((1, "gone"), (1, "first"), (1, "again"), (2, "next")):
        bundle = tiny_bundle(version)
        moment = datetime(2026, 1, day, tzinfo=UTC)
        manifest = bundle.manifest.model_copy(update={"window": (moment, moment), "created": datetime.now(UTC)})
        bundle = replace(bundle, manifest=manifest)
        write_states(bundle, offline)
        if version != "gone":
            store.publish(bundle)
    prune_states(store, offline)
    for view in ("query_augmented", "item_augmented", "query_history"):
        assert {part.name for part in (offline / view).iterdir()} == {"part=again", "part=next"}
