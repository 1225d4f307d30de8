"""After the gate: the bundle on its shelf, its state in Feast's offline history, the catalogues online."""

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

from spark_jobs.tables import replace
from training.bundle import Bundle, SideTable


def _lists(values: np.ndarray) -> pa.Array:
    flat = values.reshape(len(values), -1)
    return pa.ListArray.from_arrays(
        np.arange(len(flat) + 1, dtype=np.int32) * flat.shape[1], pa.array(flat.ravel().astype(np.float32))
    )


def _histories(queries: SideTable, item_ids: list[str]) -> pa.Array:
    """Rings of item rows → lists of item ids, newest last."""
    length = queries.history.shape[1]
    order = (queries.clicks[:, None] + np.arange(length)) % length  # oldest first
    rows = np.take_along_axis(queries.history, order, axis=1)
    filled = rows >= 0
    offsets = np.r_[0, np.cumsum(filled.sum(1))].astype(np.int32)
    return pa.ListArray.from_arrays(offsets, pa.array(item_ids, pa.string()).take(pa.array(rows[filled])))


def write_states(bundle: Bundle, offline: Path) -> None:
    """The augmented vectors and histories at the cut as Feast's offline history, one part a bundle."""
    stamp = pa.scalar(bundle.manifest.window[1], pa.timestamp("us", tz="UTC"))

    def write(view: str, columns: dict[str, pa.Array]) -> None:
        size = len(next(iter(columns.values())))
        stamps = {name: pa.repeat(stamp, size) for name in ("event_timestamp", "created_timestamp")}

        def fill(folder: Path) -> None:
            folder.mkdir()
            pq.write_table(pa.table(columns | stamps), folder / "part.parquet")

        replace(offline / view / f"part={bundle.version}", fill)

    for side, table in (("query", bundle.queries), ("item", bundle.items)):
        ids = {f"{side}_id": pa.array(table.ids, pa.string())}
        write(
            f"{side}_augmented",
            ids | {"a": _lists(table.a), "folded": table.folded, "bundle": pa.repeat(bundle.version, len(table.ids))},
        )
        if side == "query":
            write("query_history", ids | {"history": _histories(table, bundle.items.ids)})


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
        replace(before, lambda folder, source=source: shutil.copytree(source, folder))
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
