"""After the gate: the bundle in its store, its state in Feast's offline history, the catalogues online."""

import hashlib
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from feast import FeatureStore

from feature_repo.atomic import atomic_write
from model.bundle import Bundle
from model.bundle_store import BundleStore
from model.recent_items import as_lists
from training.build import list_column


def write_states(bundle: Bundle, offline: Path) -> None:
    """The augmented vectors and histories as Feast's offline history, one part a bundle.

    They are known from the moment of the state: the cut, or the last click that the state holds, if that is later.
    """
    moment_ms = max(bundle.manifest.cut_ms, int(bundle.queries.as_of.max(initial=0)))
    stamp = pa.scalar(1000 * moment_ms, pa.timestamp("us", tz="UTC"))

    def write(view: str, columns: dict[str, pa.Array]) -> None:
        size = len(next(iter(columns.values())))
        stamps = {name: pa.repeat(stamp, size) for name in ("event_timestamp", "created_timestamp")}
        with atomic_write(offline / view / f"part={bundle.version}") as folder:
            folder.mkdir()
            pq.write_table(pa.table(columns | stamps), folder / "part.parquet")

    for side, table in (("query", bundle.queries), ("item", bundle.items)):
        ids = {f"{side}_id": pa.array(table.ids, pa.string())}
        write(
            f"{side}_augmented",
            ids
            | {
                "a": list_column(table.a),
                "folded": table.update_count,
                "bundle": pa.repeat(bundle.version, len(table.ids)),
            },
        )
        if side == "query":
            item_ids = np.array(bundle.items.ids, object)
            write("query_history", ids | {"history": as_lists(table.recent_items, table.clicks, item_ids)})


def prune_states(bundles: BundleStore, offline: Path) -> None:
    """Keep of Feast's history one part a moment, that of the newest bundle, and none of a bundle that is gone: at one
    moment two vector spaces would be mixed, and the history would grow by all ids a night."""
    newest = {}
    for version in bundles.versions():
        file = offline / "item_augmented" / f"part={version}" / "part.parquet"
        if file.is_file():
            stamps = pq.read_table(file, columns=["event_timestamp"], partitioning=None)["event_timestamp"]
            newest[stamps[0].as_py() if len(stamps) else None] = version
    keep = {f"part={version}" for version in newest.values()} | {"_empty"}
    for view in ("query_augmented", "item_augmented", "query_history"):
        for part in (offline / view).glob("*"):
            if part.name not in keep and not part.name.startswith("."):
                shutil.rmtree(part)


def load_profiles(store: FeatureStore, offline: Path, loaded: Path, everything: bool = False) -> int:
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
        shutil.rmtree(loaded, ignore_errors=True)
        loaded.mkdir(parents=True)
    for view in ("query_profile", "item_profile"):
        source, before = offline / view / "part=all", loaded / view
        seen = before if before.is_dir() and not everything else None
        for changed in _changed(source, seen):
            stamp = pa.repeat(pa.scalar(datetime.now(UTC), pa.timestamp("us", tz="UTC")), len(changed))
            for name in ("event_timestamp", "created_timestamp"):
                changed = changed.append_column(name, stamp)
            store.write_to_online_store(view, changed.to_pandas(types_mapper=pd.ArrowDtype))
            rows += len(changed)
        with atomic_write(before) as folder:
            shutil.copytree(source, folder)
    mark.write_text(_identity(store))
    return rows


def _identity(store: FeatureStore) -> str:
    """Which online store this is: a file that was deleted and made anew is another."""
    online = store.config.online_store
    file = Path(online.path) if online.type == "sqlite" else None
    is_it = f"{online!r} {file.stat().st_ino if file and file.exists() else ''}"
    return hashlib.sha256(is_it.encode()).hexdigest()  # it may hold a password


def _changed(source: Path, before: Path | None) -> Iterator[pa.Table]:
    """Rows of a catalogue that another version of it has not, some at a time."""
    files = "read_parquet('{}/*.parquet', hive_partitioning = false)"
    rows = f"SELECT * EXCLUDE (event_timestamp, created_timestamp) FROM {files}"
    query = rows.format(source) + (f" EXCEPT {rows.format(before)}" if before else "")
    with duckdb.connect(config={"memory_limit": "1GB"}) as sql:
        for batch in sql.execute(query).fetch_record_batch(20_000):
            if len(batch):
                yield pa.Table.from_batches([batch])
