"""Feast's registry file, replaced in one step: Feast's own store writes over it in place, so that a kill at the wrong
moment, or a reader, finds half of it."""

import os
import uuid
from datetime import UTC, datetime

from feast.infra.registry.file import FileRegistryStore
from feast.protos.feast.core.Registry_pb2 import Registry


class AtomicRegistryStore(FileRegistryStore):
    """As Feast's, but a reader sees the whole old registry or the whole new one."""

    def update_registry_proto(self, registry_proto: Registry) -> None:
        registry_proto.version_id = str(uuid.uuid4())
        registry_proto.last_updated.FromDatetime(datetime.now(UTC))
        self._filepath.parent.mkdir(exist_ok=True)
        staging = self._filepath.with_name(f".{self._filepath.name}.{os.getpid()}")
        staging.write_bytes(registry_proto.SerializeToString())
        staging.replace(self._filepath)
