"""Reading Feast's online store in Redis below the SDK: the same bytes in an eighth of the time, asynchronously."""

from collections.abc import Sequence
from typing import Any

from feast.infra.online_stores.helpers import _mmh3, _redis_key
from feast.infra.online_stores.redis import RedisOnlineStore
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast.repo_config import RepoConfig
from google.protobuf.message import DecodeError
from redis.exceptions import ResponseError

from serving.features import Columns


class RedisReader:
    """One pipeline a call. What it returns is what the SDK would, which a test compares."""

    def __init__(self, config: RepoConfig):
        self._config = config
        self._feast = RedisOnlineStore()  # knows the connection's options; the client is this reader's own
        self._client: Any = None

    async def read(self, references: Sequence[str], key: str, ids: Sequence[str]) -> Columns:
        if self._client is None:
            self._client = await self._feast._get_client_async(self._config.online_store)
        fields = [_mmh3(reference) for reference in references]
        async with self._client.pipeline(transaction=False) as pipeline:
            for id_ in ids:
                pipeline.hmget(self._key(key, id_), fields)
            rows = await pipeline.execute(raise_on_error=False)
        # A key that holds something else is one id that is not known, not a store that is down.
        nothing = [None] * len(fields)
        rows = [nothing if isinstance(row, ResponseError) else row for row in rows]
        names = [reference.replace(":", "__", 1) for reference in references]
        return {name: [value_of(row[k]) for row in rows] for k, name in enumerate(names)}

    async def close(self) -> None:
        if self._client is not None:
            await self._client.aclose()

    def _key(self, key: str, id_: str) -> bytes:
        entity = EntityKey(join_keys=[key], entity_values=[Value(string_val=id_)])
        return _redis_key(self._config.project, entity, self._config.entity_key_serialization_version)


def value_of(encoded: bytes | None) -> Any:
    """The Python value in an encoded Feast value; None if it holds none, or is not one."""
    if encoded is None:
        return None
    try:
        value = Value.FromString(encoded)
    except DecodeError:
        return None
    kind = value.WhichOneof("val")
    if kind is None:
        return None
    content = getattr(value, kind)
    return list(content.val) if kind.endswith("list_val") else content
