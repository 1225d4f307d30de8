"""Open the Feast store of a home folder, and register its definitions."""

import json
import os
import sqlite3
from importlib.util import find_spec
from pathlib import Path

import pyarrow as pa
import yaml
from feast import FeatureStore, FeatureView
from feast.repo_config import RepoConfig
from feast.type_map import feast_value_type_to_pa

from feature_repo.card import DatasetCard
from feature_repo.home import online_store
from feature_repo.place import Place, write_parquet
from feature_repo.rows_format import FORMAT
from feature_repo.table import whole, write_table
from feature_repo.views import Definitions, define

_YAML = Path(__file__).parent / "feature_store.yaml"


def open_store(home: Path, redis: str | None = None, registry: str = "registry.db") -> FeatureStore:
    """The Feast store whose registry, online file and offline Parquet live under ``home``.

    Args:
        home: The system's home folder.
        redis: ``host:port`` (or Feast's longer connection string) of the Redis that answers online instead of SQLite;
            with ``cluster:`` in front, of some nodes of a Redis Cluster, separated by commas; with ``sentinel:NAME@``,
            of some sentinels of the master of that name (by default ``mymaster``).
        registry: The registry's place under ``home``.
    """
    config = yaml.safe_load(_YAML.read_text())
    home = home.absolute()
    home.mkdir(parents=True, exist_ok=True)
    config["registry"]["path"] = str(home / registry)
    config["online_store"] = online_store(home, redis)
    if find_spec("duckdb") is None:  # an installation for the day, which reads no history
        del config["offline_store"]
    os.environ.setdefault("FEAST_USAGE", "False")
    return FeatureStore(config=RepoConfig(**config, repo_path=home))


def history_schema(view: FeatureView) -> pa.Schema:
    """The Arrow schema of a view's offline history: key, features, and Feast's two timestamps."""
    fields = [(column.name, feast_value_type_to_pa(column.dtype.to_value_type())) for column in view.schema]
    stamp = pa.timestamp("us", tz="UTC")
    return pa.schema([*fields, ("event_timestamp", stamp), ("created_timestamp", stamp)])


def register(store: FeatureStore, card: DatasetCard, home: Place) -> None:
    """Register the card's definitions, unless they are as they were: who reads the file registry while it is written
    may find half of it, so a nightly run must not touch it without need.
    """
    offline, registry = home.absolute() / "offline", Path(store.config.registry.path)
    mark = registry.with_name("registered.json")
    asked = json.dumps([card.model_dump(mode="json"), str(offline), FORMAT])
    if mark.is_file() and mark.read_text() == asked and registry.is_file():
        return
    registry.parent.mkdir(parents=True, exist_ok=True)
    definitions = define(card, offline)
    write_empty_history(definitions, offline)
    store.apply(definitions.objects)
    if store.config.online_store.type == "sqlite":
        refuse_older(Path(store.config.online_store.path))
    mark.write_text(asked)


def refuse_older(online: Path) -> None:
    """Make a SQLite online store keep what is newer, as Redis does: otherwise whoever runs ``feast materialize`` takes
    the rows of the stream back to the night's."""
    with sqlite3.connect(online) as connection:
        tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND sql LIKE '%event_ts%'")
        for (table,) in tables.fetchall():
            connection.execute(
                f'CREATE TRIGGER IF NOT EXISTS "{table}_newest" BEFORE UPDATE ON "{table}" '
                "WHEN new.event_ts < old.event_ts OR (old.created_ts > 1e14 AND "  # a stamp of the stream, in µs
                "new.event_ts = old.event_ts AND coalesce(new.created_ts, 0) < old.created_ts) "
                "BEGIN SELECT RAISE(IGNORE); END"
            )


def write_empty_history(definitions: Definitions, offline: Place) -> None:
    """One empty Parquet file a view: a view without history reads as empty, where a missing file would fail."""
    for name, view in definitions.views.items():
        empty = offline / name / "_empty"
        if not whole(empty).exists():
            with write_table(empty) as folder:
                folder.mkdir()
                write_parquet(history_schema(view).empty_table(), folder / "schema.parquet")


def service_fields(store: FeatureStore, name: str) -> dict[str, str]:
    """A registered feature service as ``{view__feature: type}``: exactly what a tower reads."""
    projections = store.get_feature_service(name).feature_view_projections
    return {f"{view.name}__{field.name}": str(field.dtype) for view in projections for field in view.features}
