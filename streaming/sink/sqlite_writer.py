"""Rows into Feast's SQLite layout, which refuses older stamps by the triggers of :mod:`feature_repo.store`.

Feast keeps whole seconds there. The stamp's microseconds go into ``created_ts``, which no online read looks at.
"""

import sqlite3
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from streaming.sink.values import encode

if TYPE_CHECKING:
    from feast.repo_config import RepoConfig

Array = np.ndarray
_PATIENCE_S = 5


class SqliteWriter:
    """Writes rows of one side after the other; all views of a batch in one transaction.

    Args:
        views: For each side, the views and their features.
    """

    def __init__(self, config: "RepoConfig", views: Mapping[str, Mapping[str, tuple[str, ...]]]):
        self._config, self._views = config, views
        self._connection = sqlite3.connect(config.online_store.path, timeout=_PATIENCE_S)
        self._connection.execute("PRAGMA journal_mode=WAL")  # else a write locks all readers out
        self._connection.execute("PRAGMA synchronous=NORMAL")  # the stream can write everything again

    def write(self, side: str, ids: list[str], columns: Mapping[str, pa.Array], stamps: Array) -> None:
        """Write rows with their stamps (µs).

        Raises:
            sqlite3.Error: the file is locked or gone; writing the same rows again is harmless.
        """
        keys = self._keys(side, ids)
        times = stamps.tolist()
        with self._connection:
            for view, names in self._views[side].items():
                rows = [
                    (key, name, value, stamp // 1_000_000, stamp)
                    for name in names
                    for key, value, stamp in zip(keys, encode(columns[name]), times, strict=True)
                ]
                table = f"{self._config.project}_{view}"
                self._connection.executemany(
                    f'INSERT INTO "{table}" (entity_key, feature_name, value, event_ts, created_ts) '
                    "VALUES (?, ?, ?, ?, ?) ON CONFLICT (entity_key, feature_name) DO UPDATE SET "
                    "value = excluded.value, event_ts = excluded.event_ts, created_ts = excluded.created_ts",
                    rows,
                )

    def erase(self, ids: list[str]) -> None:
        """Empty all values of some queries, of the catalogue too. Their stamps stay: they keep older rows out.

        Raises:
            sqlite3.Error: the file is locked or gone.
        """
        keys = [(key,) for key in self._keys("query", ids)]
        with self._connection:
            self._connection.execute("PRAGMA secure_delete=ON")
            for view in (*self._views["query"], "query_profile"):
                self._connection.executemany(
                    f"UPDATE \"{self._config.project}_{view}\" SET value = x'' WHERE entity_key = ?", keys
                )

    def _keys(self, side: str, ids: list[str]) -> list[bytes]:
        from feast.infra.key_encoding_utils import serialize_entity_key
        from feast.protos.feast.types.EntityKey_pb2 import EntityKey
        from feast.protos.feast.types.Value_pb2 import Value

        version = self._config.entity_key_serialization_version
        return [
            serialize_entity_key(EntityKey(join_keys=[f"{side}_id"], entity_values=[Value(string_val=id_)]), version)
            for id_ in ids
        ]
