"""Rows into Feast's Redis layout: all views of an entity in one command, which refuses a stamp older than the stored.

Feast's own writer reads the stored times and then writes: a process that is frozen in between overwrites what came
meanwhile. It also builds a protobuf message a value, which is most of its time. Here the bytes are put together from
arrays; tests read them back through Feast.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from streaming.sink.values import encode, timestamp

if TYPE_CHECKING:
    from feast.repo_config import RepoConfig

Array = np.ndarray
_TIMEOUT_S = 5
_STAMP = "_dat"  # the hash field that holds the row's stamp, beside Feast's
_WRITE = f"""
local stored = redis.call('HGET', KEYS[1], '{_STAMP}')
if stored and tonumber(stored) >= tonumber(ARGV[1]) then return 0 end
redis.call('HSET', KEYS[1], '{_STAMP}', unpack(ARGV))
return 1
"""


_ERASE = f"""
for _, field in ipairs(redis.call('HKEYS', KEYS[1])) do
    if field ~= '{_STAMP}' and string.sub(field, 1, 4) ~= '_ts:' then redis.call('HDEL', KEYS[1], field) end
end
"""


class RedisWriter:
    """Writes rows of one side after the other.

    Args:
        views: For each side, the views and their features.
    """

    def __init__(self, config: "RepoConfig", views: Mapping[str, Mapping[str, tuple[str, ...]]]):
        from feast.infra.online_stores.helpers import _mmh3
        from feast.infra.online_stores.redis import RedisOnlineStore

        self._project = config.project
        self._version = config.entity_key_serialization_version
        self._client = RedisOnlineStore()._get_client(config.online_store)
        for pool in _pools(self._client):
            pool.connection_kwargs |= {"socket_timeout": _TIMEOUT_S, "socket_connect_timeout": _TIMEOUT_S}
        self._fields = {
            side: {name: [(view, _mmh3(f"{view}:{name}")) for view in some if name in some[view]] for name in names}
            for side, some in views.items()
            for names in [dict.fromkeys(name for of in some.values() for name in of)]
        }
        self._times = {side: [f"_ts:{view}" for view in some] for side, some in views.items()}

    def write(self, side: str, ids: list[str], columns: Mapping[str, pa.Array], stamps: Array) -> int:
        """Write rows with their stamps (µs); returns how many were newer than what was stored.

        Raises:
            redis.RedisError: the store did not answer; writing the same rows again is harmless.
        """
        values = {name: encode(columns[name]) for name in self._fields[side]}
        fields = [
            (field, values[name]) for name, places in self._fields[side].items() for _, field in places
        ]  # fmt: skip
        with self._client.pipeline(transaction=False) as pipe:
            for row, (id_, stamp) in enumerate(zip(ids, stamps.tolist(), strict=True)):
                arguments: list[Any] = [stamp]
                for field, encoded in fields:
                    arguments += field, encoded[row]
                time = timestamp(stamp)
                for name in self._times[side]:
                    arguments += name, time
                pipe.execute_command("EVAL", _WRITE, 1, self._key(side, id_), *arguments)
            return sum(pipe.execute())

    def erase(self, ids: list[str]) -> None:
        """Delete all values of some queries, of whatever view. Stamps and times stay: they keep older rows out.

        Raises:
            redis.RedisError: the store did not answer.
        """
        with self._client.pipeline(transaction=False) as pipe:
            for id_ in ids:
                pipe.execute_command("EVAL", _ERASE, 1, self._key("query", id_))
            pipe.execute()

    def _key(self, side: str, id_: str) -> bytes:
        from feast.infra.online_stores.helpers import _redis_key
        from feast.protos.feast.types.EntityKey_pb2 import EntityKey
        from feast.protos.feast.types.Value_pb2 import Value

        key = EntityKey(join_keys=[f"{side}_id"], entity_values=[Value(string_val=id_)])
        return _redis_key(self._project, key, entity_key_serialization_version=self._version)


def _pools(client: Any) -> list[Any]:
    nodes = client.get_nodes() if hasattr(client, "get_nodes") else None
    return [node.redis_connection.connection_pool for node in nodes] if nodes else [client.connection_pool]
