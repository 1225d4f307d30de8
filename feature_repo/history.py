"""Feast's offline store of a home: its own on DuckDB, which also reads a home by URL.

There a view's files are those of its tables (:mod:`feature_repo.table`), and Arrow reads them: DuckDB alone would need
an extension, which it fetches over the internet.
"""

from functools import partial
from typing import Any

import ibis
from feast.data_source import DataSource
from feast.infra.offline_stores import ibis as joins
from feast.infra.offline_stores.duckdb import (
    DuckDBOfflineStore,
    DuckDBOfflineStoreConfig,
    _read_data_source,
    _write_data_source,
)

from feature_repo.home_url import is_url
from feature_repo.place import UrlPath
from feature_repo.table import dataset, files_of_tables
from feature_repo.views import FILES


class HomeOfflineStoreConfig(DuckDBOfflineStoreConfig):
    type: str = "feature_repo.history.HomeOfflineStore"


def read_history(source: DataSource, repo_path: str) -> ibis.Table:
    """A view's history, some rows at a time."""
    where = str(getattr(source, "path", ""))
    if not is_url(where):
        return _read_data_source(source, repo_path)
    view = UrlPath.of(where.removesuffix(f"/{FILES}"))
    return ibis.memtable(dataset(files_of_tables(view, FILES)))


_HOW: dict[str, Any] = {"data_source_reader": read_history, "data_source_writer": _write_data_source}


class HomeOfflineStore(DuckDBOfflineStore):
    get_historical_features = staticmethod(partial(joins.get_historical_features_ibis, **_HOW))
    pull_latest_from_table_or_query = staticmethod(partial(joins.pull_latest_from_table_or_query_ibis, **_HOW))
    pull_all_from_table_or_query = staticmethod(partial(joins.pull_all_from_table_or_query_ibis, **_HOW))
