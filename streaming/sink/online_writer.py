"""Writing states to the Feast online store in bulk: straight from arrays, with stamps that tell newer from older.

``store.push`` does the same one data frame at a time, and deserialises the registry on every call.
"""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from streaming.kafka.records import QUERY_STATE
from streaming.sink.redis_writer import RedisWriter
from streaming.sink.sqlite_writer import SqliteWriter
from streaming.sink.values import encode

if TYPE_CHECKING:
    from collections.abc import Callable

    from feast import FeatureStore, FeatureView
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey
    from feast.protos.feast.types.Value_pb2 import Value
    from feast.repo_config import RepoConfig

    _Row = tuple[EntityKey, dict[str, Value], datetime, datetime | None]

Array = np.ndarray
_EPOCH = datetime.fromtimestamp(0, UTC)
VIEWS: dict[str, dict[str, tuple[str, ...]]] = {
    "query": {
        "query_augmented": ("a", "folded", "bundle"),
        "query_history": ("history",),
        # Last, since readers wait for its count of clicks: by then all the rest of the click is there.
        "query_activity": ("clicks", "counters", "last_click"),
    },
    "item": {"item_activity": ("clicks", "counters", "last_click"), "item_augmented": ("a", "folded", "bundle")},
}


PROFILE = "query_profile"
"""The view of the queries' catalogue, which the night writes."""


class OnlineWriter:
    """Writes ``QUERY_STATE`` and ``ITEM_STATE`` rows into the views that the stream owns.

    Args:
        store: Says where the online store is; the writer has a connection of its own.
        bundle: The version in whose space the vectors lie; it is written beside them.
    """

    def __init__(self, store: "FeatureStore", bundle: str):
        self._config, self._bundle = store.config, bundle
        names = [*(name for views in VIEWS.values() for name in views), PROFILE]
        self._views = {name: store.get_feature_view(name) for name in names}
        self._reader: FeatureStore | None = None
        self._writer: RedisWriter | SqliteWriter | _FeastWriter | None = None
        if self._config.online_store.type == "sqlite":
            from feature_repo.store import refuse_older

            refuse_older(Path(self._config.online_store.path))

    def write(self, side: str, rows: pa.RecordBatch | pa.Table, stamps: Array) -> None:
        """Write rows of distinct ids; the store keeps those that have a newer stamp (µs) than these.

        Raises:
            Exception: whatever the store's driver raises; writing the same rows again is harmless.
        """
        columns = {name: _whole(rows[name]) for name in _names(side) if name != "bundle"}
        columns["bundle"] = pa.array([self._bundle] * len(rows), pa.string())
        self._with_writer(lambda writer: writer.write(side, rows["id"].to_pylist(), columns, stamps))

    def clear(self, side: str, ids: list[str], stamps: Array) -> None:
        """Write that nothing is known of some ids. What is left is the stamps, which keep older rows out.

        Raises:
            Exception: whatever the store's driver raises; writing the same again is harmless.
        """
        columns = {name: pa.nulls(len(ids)) for name in _names(side)}
        self._with_writer(lambda writer: writer.write(side, ids, columns, stamps))

    def erase(self, ids: list[str]) -> None:
        """Take all values of some queries out of the store, whatever their stamps, the catalogue's included.

        Raises:
            Exception: whatever the store's driver raises; doing it again is harmless.
        """
        self._with_writer(lambda writer: writer.erase(ids))

    def _with_writer(self, do: "Callable[[RedisWriter | SqliteWriter | _FeastWriter], object]") -> None:
        try:
            if self._writer is None:
                self._writer = self._connected()
            do(self._writer)
        except Exception:
            self._writer = None  # its connection may be dead
            raise

    def _connected(self) -> "RedisWriter | SqliteWriter | _FeastWriter":
        match self._config.online_store.type:
            case "redis":
                return RedisWriter(self._config, VIEWS)
            case "sqlite":
                return SqliteWriter(self._config, VIEWS)
        return _FeastWriter(self._config, self._views)

    def write_marker(self, name: str, stamp: int) -> None:
        """A row that no query has: while it is there, so are the others.

        Raises:
            Exception: whatever the store's driver raises.
        """
        self._write_sign(name, stamp, folded=stamp)

    def write_progress(self, partition: int, next_offset: int, stamp: int) -> None:
        """A row that no query has: all clicks of a partition below this offset count in the rows that are there.

        Raises:
            Exception: whatever the store's driver raises.
        """
        self._write_sign(progress_row(partition), stamp, clicks=next_offset)

    def _write_sign(self, name: str, stamp: int, folded: int = 0, clicks: int = 0) -> None:
        row = {"a": [[]], "folded": [folded], "clicks": [clicks], "counters": [[]], "last_click": [0], "history": [[]]}
        columns = {n: pa.array(values, QUERY_STATE.field(n).type) for n, values in {"id": [name], **row}.items()}
        self.write("query", pa.record_batch(columns), np.array([stamp]))

    def read_marker(self, name: str) -> int | None:
        """The stamp of a marker; None if it is gone.

        Raises:
            Exception: whatever the store's driver raises.
        """
        if self._reader is None:
            from feast import FeatureStore

            self._reader = FeatureStore(config=self._config)  # SQLite's connections are a thread's own
        answer = self._reader.get_online_features(["query_augmented:folded"], [{"query_id": name}]).to_dict()
        return answer["folded"][0]


def progress_row(partition: int) -> str:
    """The query id under which ``query_activity:clicks`` says how far a partition of ``clicks`` has come."""
    return f"dat-progress {partition}"


def _names(side: str) -> dict[str, None]:
    return dict.fromkeys(name for of in VIEWS[side].values() for name in of)


def _whole(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


class _FeastWriter:
    """Any other store, through Feast's provider, which takes the stamps as event times."""

    def __init__(self, config: "RepoConfig", views: "dict[str, FeatureView]"):
        from feast.infra.provider import get_provider

        self._config, self._views, self._provider = config, views, get_provider(config)

    def write(self, side: str, ids: list[str], columns: dict[str, pa.Array], stamps: Array) -> None:
        from feast.protos.feast.types.EntityKey_pb2 import EntityKey
        from feast.protos.feast.types.Value_pb2 import Value

        keys = [EntityKey(join_keys=[f"{side}_id"], entity_values=[Value(string_val=id_)]) for id_ in ids]
        times = [_EPOCH + timedelta(microseconds=stamp) for stamp in stamps.tolist()]
        values = {name: [Value.FromString(value) for value in encode(column)] for name, column in columns.items()}
        for view, names in VIEWS[side].items():
            data: list[_Row] = [
                (key, dict(zip(names, row, strict=True)), time, None)
                for key, time, row in zip(keys, times, zip(*(values[n] for n in names), strict=True), strict=True)
            ]
            self._provider.online_write_batch(self._config, self._views[view], data, None)

    def erase(self, ids: list[str]) -> None:
        """Of the catalogue's values; those of the stream have stamps, which only their sink may write over."""
        from feast.protos.feast.types.EntityKey_pb2 import EntityKey
        from feast.protos.feast.types.Value_pb2 import Value

        view, now = self._views[PROFILE], datetime.now(UTC)
        keys = [EntityKey(join_keys=["query_id"], entity_values=[Value(string_val=id_)]) for id_ in ids]
        data: list[_Row] = [(key, {field.name: Value() for field in view.features}, now, now) for key in keys]
        self._provider.online_write_batch(self._config, view, data, None)
