"""After the gate: the bundle in its store, its state in Feast's offline history, the catalogues online."""

import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pandas as pd
import pyarrow as pa
from feast import FeatureStore

from feature_repo.place import Place, read_parquet, write_parquet
from feature_repo.table import dataset, delete_table, whole, write_table, write_text
from model.bundle import Bundle
from model.bundle_store import BundleStore
from model.recent_items import as_lists
from training.build import list_column


def write_states(bundle: Bundle, offline: Place) -> None:
    """The augmented vectors and histories as Feast's offline history, one part a bundle.

    They are known from the moment of the state: the cut, or the last click that the state holds, if that is later.
    """
    moment_ms = max(bundle.manifest.cut_ms, int(bundle.queries.as_of.max(initial=0)))
    stamp = pa.scalar(1000 * moment_ms, pa.timestamp("us", tz="UTC"))

    def write(view: str, columns: dict[str, pa.Array]) -> None:
        size = len(next(iter(columns.values())))
        stamps = {name: pa.repeat(stamp, size) for name in ("event_timestamp", "created_timestamp")}
        with write_table(offline / view / f"part={bundle.version}") as folder:
            folder.mkdir()
            write_parquet(pa.table(columns | stamps), folder / "part.parquet")

    for side, table in (("query", bundle.queries), ("item", bundle.items)):
        ids = {f"{side}_id": pa.array(table.ids, pa.string())}
        write(
            f"{side}_augmented",
            ids
            | {
                "a": list_column(table.a),
                "folded": table.update_count,
                "bundle": pa.repeat(bundle.version, len(table)),
            },
        )
        if side == "query":
            history = as_lists(table.recent_items, table.clicks, bundle.items.ids)
            write("query_history", ids | {"history": history})


def prune_states(bundles: BundleStore, offline: Place) -> None:
    """Keep of Feast's history one part a moment, that of the newest bundle, and none of a bundle that is gone: at one
    moment two vector spaces would be mixed, and the history would grow by all ids a night."""
    newest = {}
    for version in bundles.versions():
        file = whole(offline / "item_augmented" / f"part={version}") / "part.parquet"
        if file.is_file():
            stamps = read_parquet(file, ["event_timestamp"])["event_timestamp"]
            newest[stamps[0].as_py() if len(stamps) else None] = version
    keep = {f"part={version}" for version in newest.values()} | {"_empty"}
    for view in ("query_augmented", "item_augmented", "query_history"):
        for part in (offline / view).glob("*"):
            if part.name not in keep and not part.name.startswith("."):
                delete_table(part)


def load_profiles(store: FeatureStore, offline: Place, loaded: Place, everything: bool = False) -> int:
    """Load what is new or has changed in the catalogues into the online store; returns how many rows that were.

    Only these views: the stream owns the others and is fresher. Feast's own ``materialize`` would load all rows every
    night, and Redis would leave out those that have changed, since their event time has not.

    Args:
        loaded: The folder that keeps what was loaded last, and into which store.
        everything: Load all rows, such as into a store that has lost them.
    """
    rows, where = 0, _identity(store)
    mark = loaded / "store"
    if not mark.is_file() or mark.read_text() != where:
        delete_table(loaded)
        loaded.mkdir(parents=True)
    for view in ("query_profile", "item_profile"):
        source = _files(whole(offline / view / "part=all"))
        seen = [] if everything else _files(whole(loaded / view))
        for changed in _changed(source, seen):
            stamp = pa.repeat(pa.scalar(datetime.now(UTC), pa.timestamp("us", tz="UTC")), len(changed))
            for name in ("event_timestamp", "created_timestamp"):
                changed = changed.append_column(name, stamp)
            store.write_to_online_store(view, changed.to_pandas(types_mapper=pd.ArrowDtype))
            rows += len(changed)
        with write_table(loaded / view) as folder:
            folder.mkdir()
            for file in source:
                (folder / file.name).write_bytes(file.read_bytes())
    write_text(mark, _identity(store))
    return rows


def _identity(store: FeatureStore) -> str:
    """Which online store this is: a file that was deleted and made anew is another."""
    online = store.config.online_store
    file = Path(online.path) if online.type == "sqlite" else None
    is_it = f"{online!r} {file.stat().st_ino if file and file.exists() else ''}"
    return hashlib.sha256(is_it.encode()).hexdigest()  # it may hold a password


def _files(folder: Place) -> list[Place]:
    return sorted(folder.glob("*.parquet"))


def _changed(source: list[Place], before: list[Place]) -> Iterator[pa.Table]:
    """Rows of a catalogue that another version of it has not, some at a time."""
    rows = "SELECT * EXCLUDE (event_timestamp, created_timestamp) FROM {}"
    query = rows.format("source") + (f" EXCEPT {rows.format('before')}" if before else "")
    with duckdb.connect(config={"memory_limit": "1GB"}) as sql:
        sql.register("source", dataset(source))
        if before:
            sql.register("before", dataset(before))
        for batch in sql.execute(query).fetch_record_batch(20_000):
            if len(batch):
                yield pa.Table.from_batches([batch])
