"""Where Feast keeps things: in the home folder that `dat` uses, also when Feast's own command is started here.

The paths of ``feature_store.yaml`` are relative. `dat` opens it with absolute ones; where they are still relative,
Feast was started by hand, and the environment says which home and which Redis: else it would make a second, empty
system.
"""

import os
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from feast.infra.passthrough_provider import PassthroughProvider
from feast.infra.registry.file import FileRegistryStore
from feast.protos.feast.core.Registry_pb2 import Registry
from feast.repo_config import RegistryConfig, RepoConfig

from feature_repo.atomic import atomic_write
from feature_repo.home_url import as_url, is_url, own_folder

_TIMEOUT_S = 2


def online_store(home: Path, redis: str | None) -> dict[str, Any]:
    """The settings of the online store of a home; ``redis`` as in :func:`feature_repo.store.open_store`."""
    if not redis:
        return {"type": "sqlite", "path": str(home / "online.db")}
    if redis.startswith("sentinel:"):
        first, *rest = redis.removeprefix("sentinel:").split(",")
        master, _, address = first.rpartition("@")
        # A sentinel that hangs must not hold whoever asks it for longer than Redis itself may.
        nodes = ",".join([address, f"socket_timeout={_TIMEOUT_S}", f"socket_connect_timeout={_TIMEOUT_S}", *rest])
        name = {"sentinel_master": master} if master else {}
        return {"type": "redis", "redis_type": "redis_sentinel", "connection_string": nodes, **name}
    nodes = redis.removeprefix("cluster:")
    kind = "redis" if nodes == redis else "redis_cluster"
    return {"type": "redis", "redis_type": kind, "connection_string": nodes}


def _asked(repo: Path) -> Path:
    home, scratch = os.environ.get("DAT_HOME"), os.environ.get("DAT_SCRATCH")
    if home and is_url(home):
        return own_folder(as_url(home), Path(scratch) if scratch else None)
    return Path(home or repo.parent / ".dat").absolute()


class AtomicRegistryStore(FileRegistryStore):
    """As Feast's, but a reader sees the whole old registry or the whole new one: Feast writes over it in place, so that
    a kill at the wrong moment, or a reader, finds half of it."""

    def __init__(self, registry_config: RegistryConfig, repo_path: Path):
        super().__init__(registry_config, repo_path)
        if not Path(registry_config.path).is_absolute():
            self._filepath = _asked(repo_path) / "registry.db"

    def update_registry_proto(self, registry_proto: Registry) -> None:
        registry_proto.version_id = str(uuid.uuid4())
        registry_proto.last_updated.FromDatetime(datetime.now(UTC))
        with atomic_write(self._filepath) as staging:
            staging.write_bytes(registry_proto.SerializeToString())


class HomeProvider(PassthroughProvider):
    """As Feast's, with the online store of the home."""

    def __init__(self, config: RepoConfig):
        online = config.online_store
        if online.type == "sqlite" and not Path(online.path).is_absolute():
            config.online_config = online_store(_asked(config.repo_path or Path.cwd()), os.environ.get("DAT_REDIS"))
            config._online_store = None
        super().__init__(config)
