"""Open the Feast store of a home folder, and register its definitions."""

import os
from pathlib import Path

import yaml
from feast import FeatureStore
from feast.repo_config import RepoConfig

from feature_repo.card import DatasetCard
from feature_repo.views import define

_YAML = Path(__file__).parent / "feature_store.yaml"


def open_store(home: Path, redis: str | None = None) -> FeatureStore:
    """The Feast store whose registry, online file and offline Parquet live under ``home``.

    Args:
        home: The system's home folder.
        redis: ``host:port`` (or Feast's longer connection string) of the Redis that answers online instead of SQLite.
    """
    config = yaml.safe_load(_YAML.read_text())
    feast_home = home.absolute() / "feast"
    feast_home.mkdir(parents=True, exist_ok=True)
    config["registry"]["path"] = str(feast_home / "registry.db")
    config["online_store"]["path"] = str(feast_home / "online.db")
    if redis:
        config["online_store"] = {"type": "redis", "connection_string": redis}
    os.environ.setdefault("FEAST_USAGE", "False")
    return FeatureStore(config=RepoConfig(**config, repo_path=feast_home))


def register(store: FeatureStore, card: DatasetCard, home: Path) -> None:
    """Register the card's definitions: once, at deployment. The file registry is not safe for several writers."""
    offline = home.absolute() / "offline"
    definitions = define(card, offline)
    for name in definitions.views:
        (offline / name).mkdir(parents=True, exist_ok=True)
    store.apply(definitions.objects)
