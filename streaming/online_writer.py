"""Writing states to the Feast online store in bulk: the views are fetched once, the values built straight from arrays.

``store.push`` does the same one data frame at a time, and deserialises the registry on every call.
"""

import sqlite3
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pyarrow as pa

if TYPE_CHECKING:
    from feast import FeatureStore

_INTEGERS, _VECTORS, _STRINGS = ("clicks", "last_click", "folded"), ("counters", "a"), ("history",)
_VIEWS = {
    "query": {
        "query_augmented": ("a", "folded"),
        "query_history": ("history",),
        # Last, since readers wait for its count of clicks: by then all the rest of the click is there.
        "query_activity": ("clicks", "counters", "last_click"),
    },
    "item": {"item_activity": ("clicks", "counters", "last_click"), "item_augmented": ("a", "folded")},
}


class OnlineWriter:
    """Writes ``QUERY_STATE`` and ``ITEM_STATE`` rows into the views that the stream owns.

    Args:
        store: Says where the online store is; the writer has a connection of its own.
        bundle: The version in whose space the vectors lie; it is written beside them.
    """

    def __init__(self, store: "FeatureStore", bundle: str):
        self._config, self._bundle = store.config, bundle
        self._views = {name: store.get_feature_view(name) for views in _VIEWS.values() for name in views}
        self._last = datetime.fromtimestamp(0, UTC)
        self._provider = None
        if self._config.online_store.type == "sqlite":
            # Else every write locks all readers out, and waits for the disk twice.
            with sqlite3.connect(self._config.online_store.path) as connection:
                connection.execute("PRAGMA journal_mode=WAL")

    def write(self, side: str, rows: pa.RecordBatch) -> None:
        """Write rows of distinct ids.

        Raises:
            Exception: whatever the store's driver raises; writing the same rows again is harmless.
        """
        from feast.infra.provider import get_provider
        from feast.protos.feast.types.EntityKey_pb2 import EntityKey
        from feast.protos.feast.types.Value_pb2 import FloatList, StringList, Value

        if self._provider is None:
            self._provider = get_provider(self._config)
        keys = [
            EntityKey(join_keys=[f"{side}_id"], entity_values=[Value(string_val=key)]) for key in rows["id"].to_pylist()
        ]
        values = {name: [Value(int64_val=value) for value in rows[name].to_pylist()] for name in _INTEGERS}
        for name in _VECTORS:
            values[name] = [Value(float_list_val=FloatList(val=value)) for value in rows[name].to_pylist()]
        for name in _STRINGS if side == "query" else ():
            values[name] = [Value(string_list_val=StringList(val=value)) for value in rows[name].to_pylist()]
        bundle = Value(string_val=self._bundle)
        written = self._now()
        try:
            for view, names in _VIEWS[side].items():
                columns = [values[name] for name in names]
                data = [
                    (key, dict(zip(names, row, strict=True)), written, None)
                    for key, row in zip(keys, zip(*columns, strict=True), strict=True)
                ]
                if view.endswith("_augmented"):
                    for _, row, _, _ in data:
                        row["bundle"] = bundle
                self._provider.online_write_batch(self._config, self._views[view], data, None)
        except Exception:
            self._provider = None  # its connection may be dead
            raise

    def _now(self) -> datetime:
        """A time later than that of any write before: Redis drops a value that is not newer than the stored one."""
        now = datetime.fromtimestamp(time.time(), UTC)
        self._last = now if now > self._last else self._last + timedelta(microseconds=1)
        return self._last
