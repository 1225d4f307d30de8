"""Open the Feast store of a home folder, and register its definitions."""

import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from feast import FeatureStore, FeatureView
from feast.repo_config import RepoConfig
from feast.type_map import feast_value_type_to_pa

from feature_repo.card import DatasetCard
from feature_repo.views import Definitions, define

_YAML = Path(__file__).parent / "feature_store.yaml"


def open_store(home: Path, redis: str | None = None) -> FeatureStore:
    """The Feast store whose registry, online file and offline Parquet live under ``home``.

    Args:
        home: The system's home folder.
        redis: ``host:port`` (or Feast's longer connection string) of the Redis that answers online instead of SQLite;
            with ``cluster:`` in front, of some nodes of a Redis Cluster, separated by commas.
    """
    config = yaml.safe_load(_YAML.read_text())
    home = home.absolute()
    home.mkdir(parents=True, exist_ok=True)
    config["registry"]["path"] = str(home / "registry.db")
    config["online_store"]["path"] = str(home / "online.db")
    if redis:
        nodes = redis.removeprefix("cluster:")
        kind = "redis" if nodes == redis else "redis_cluster"
        config["online_store"] = {"type": "redis", "redis_type": kind, "connection_string": nodes}
    os.environ.setdefault("FEAST_USAGE", "False")
    return FeatureStore(config=RepoConfig(**config, repo_path=home))


def open_spark_store(home: Path, card: DatasetCard) -> FeatureStore:
    """The same views over the same files, for Feast's Spark offline store in the running Spark session.

    Its registry is its own, and made anew: the online views stay those of :func:`open_store`.
    """
    from feast.infra.offline_stores.contrib.spark_offline_store.spark_source import SparkSource

    config = yaml.safe_load(_YAML.read_text())
    home = home.absolute()
    registry = home / "spark" / "registry.db"
    registry.unlink(missing_ok=True)
    config["registry"]["path"], config["online_store"]["path"] = str(registry), str(home / "spark" / "online.db")
    config["offline_store"] = {"type": "spark"}
    store = FeatureStore(config=RepoConfig(**config, repo_path=home))
    store.apply(define(card, home / "offline", SparkSource).objects)
    return store


def history_schema(view: FeatureView) -> pa.Schema:
    """The Arrow schema of a view's offline history: key, features, and Feast's two timestamps."""
    fields = [(column.name, feast_value_type_to_pa(column.dtype.to_value_type())) for column in view.schema]
    stamp = pa.timestamp("us", tz="UTC")
    return pa.schema([*fields, ("event_timestamp", stamp), ("created_timestamp", stamp)])


def register(store: FeatureStore, card: DatasetCard, home: Path) -> None:
    """Register the card's definitions, unless they are as they were: who reads the file registry while it is written
    may find half of it, so a nightly run must not touch it without need.
    """
    offline = home.absolute() / "offline"
    mark = home / "registered.json"
    asked = json.dumps([card.model_dump(mode="json"), str(offline)])
    if mark.is_file() and mark.read_text() == asked and (home / "registry.db").is_file():
        return
    definitions = define(card, offline)
    write_empty_history(definitions, offline)
    store.apply(definitions.objects)
    mark.write_text(asked)


def write_empty_history(definitions: Definitions, offline: Path) -> None:
    """One empty Parquet file a view: a view without history reads as empty, where a missing file would fail."""
    for name, view in definitions.views.items():
        file = offline / name / "_empty" / "schema.parquet"
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(history_schema(view).empty_table(), file)


def service_fields(store: FeatureStore, name: str) -> dict[str, str]:
    """A registered feature service as ``{view__feature: type}``: exactly what a tower reads."""
    projections = store.get_feature_service(name).feature_view_projections
    return {f"{view.name}__{field.name}": str(field.dtype) for view in projections for field in view.features}
