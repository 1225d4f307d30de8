"""After the gate: the bundle on its shelf, its state in Feast's offline history, the catalogues online."""

import contextlib
import io
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from feast import FeatureStore

from spark_jobs.tables import replace
from training.bundle import Bundle, SideTable

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


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


def materialise_profiles(store: FeatureStore) -> None:
    """Load the catalogues into the online store. Only these: the stream owns the other views and is fresher."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        store.materialize(_EPOCH, datetime.now(UTC), feature_views=["query_profile", "item_profile"])
