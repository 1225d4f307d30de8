"""What an answer reads of the online store, and reading it through Feast's SDK: SQLite's way, and the reference."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from feast import FeatureStore
from feast.infra.provider import Provider, get_provider
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast.type_map import feast_value_type_to_pa, python_values_to_proto_values

_LARGEST = float(np.finfo(np.float32).max)
Columns = dict[str, list[Any]]
"""``view__feature`` → one value an id, None where nothing is known."""


class Reader(Protocol):
    """Reads features of some ids; raises whatever its store raises."""

    async def read(self, references: Sequence[str], key: str, ids: Sequence[str]) -> Columns: ...

    async def close(self) -> None: ...


class FeatureNames:
    """Which features the service reads, as ``view:feature``.

    query: what the query tower reads, and whether the catalogue knows the query · item: all of the catalogue.
    types: of the catalogue's features of items, as Arrow has them ·
    texts: item features that are text and read by no tower, the card's first (the title) first.
    """

    def __init__(self, store: FeatureStore):
        tower = store.get_feature_service("query_tower")
        self.query = [f"{view.name}:{field.name}" for view in tower.feature_view_projections for field in view.features]
        self.query.append("query_profile:known")
        read = {
            field.name
            for view in store.get_feature_service("item_tower").feature_view_projections
            for field in view.features
        }
        view = store.get_feature_view("item_profile")
        self.types = {field.name: feast_value_type_to_pa(field.dtype.to_value_type()) for field in view.features}
        profile = list(self.types)
        self.item = [f"item_profile:{name}" for name in profile]
        self.texts = [name for name, type_ in self.types.items() if type_ == pa.string() and name not in read]


class SdkReader:
    """Reads through Feast's SDK, in the thread that calls: 0.5 ms a call, whatever the store."""

    def __init__(self, store: FeatureStore):
        self._store = store

    def read(self, references: Sequence[str], key: str, ids: Sequence[str]) -> Columns:
        return self._store.get_online_features(
            features=list(references), entity_rows={key: list(ids)}, full_feature_names=True
        ).to_dict()


class NotAFeature(ValueError):
    """A feature has no such name, or no such value. The message says which, and what there is."""


def checked(given: Mapping[str, Any], types: Mapping[str, pa.DataType], where: str = "body") -> dict[str, Any]:
    """An item's features as the catalogue has them: those that are None are left out.

    Args:
        where: They stand, for the message.

    Raises:
        NotAFeature: the catalogue has no such feature, or the value is not of its type.
    """
    kinds = {
        pa.string(): ("a string", str),
        pa.int64(): ("a whole number", int),
        pa.float32(): ("a number", int | float),
    }
    features = {}
    for name, value in given.items():
        if name not in types or name == "known":
            there = ", ".join(known for known in types if known != "known") or "none"
            raise NotAFeature(f"{where}.features.{name}: the catalogue has no such feature; there are: {there}")
        if value is None:
            continue
        type_ = types[name]
        several = pa.types.is_list(type_)
        what, kind = kinds.get(type_.value_type if several else type_, ("a value", object))
        values = value if several and isinstance(value, list) else [value]
        good = all(isinstance(one, kind) and not isinstance(one, bool) and _fits(one) for one in values)
        if several is not isinstance(value, list) or not good:
            raise NotAFeature(f"{where}.features.{name}: must be {f'a list, each {what}' if several else what}")
        features[name] = value
    return features


def _fits(value: Any) -> bool:
    """Whether a store can hold it: text in UTF-8, whole numbers of 64 bits, numbers that are finite as a float32."""
    if isinstance(value, int):
        return -(2**63) <= value < 2**63
    if isinstance(value, float):
        return abs(value) <= _LARGEST
    return not isinstance(value, str) or value == value.encode(errors="replace").decode()


class SdkWriter:
    """Writes what the catalogue knows of items through Feast, for whoever reads it there: the updater, other services.
    For one thread."""

    def __init__(self, store: FeatureStore):
        self._config, self._view = store.config, store.get_feature_view("item_profile")
        self._types = {field.name: field.dtype.to_value_type() for field in self._view.features}
        self._provider: Provider | None = None

    def write(self, items: Mapping[str, Mapping[str, Any]]) -> None:
        """Raises whatever the store's driver raises; to write the same again does no harm."""
        self._provider = self._provider or get_provider(self._config)
        now, data = datetime.now(UTC), list[tuple[EntityKey, dict[str, Value], datetime, datetime | None]]()
        for id_, features in items.items():
            row = {**features, "known": 1}
            values = {
                name: python_values_to_proto_values([row.get(name)], type_)[0] for name, type_ in self._types.items()
            }
            key = EntityKey(join_keys=["item_id"], entity_values=[Value(string_val=id_)])
            data.append((key, values, now, now))
        self._provider.online_write_batch(self._config, self._view, data, None)
