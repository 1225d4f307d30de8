"""The training set of a night: ten days of positives with negatives, every feature as of just before the click.

``training_sets/<date>/`` holds

``positives/``           what Spark sampled: event_id, query_id, event_time, candidates (the clicked item, S others)
``train/``               the same in order of time, with what each tower reads: ``query__*``, ``item__*`` (1+S values)
``test/``                the clicks of the day after the window
``query_state.parquet``, ``item_state.parquet``   every id as of the cut
``corpus/``              the items and since when they exist
``card.json``            the data card: counts, and what was dropped
"""

import json
from collections.abc import Callable
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from feast import FeatureStore
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from feature_repo.card import DatasetCard
from spark_jobs.config import NightConfig
from spark_jobs.days import Window
from spark_jobs.features import state_at, with_columns
from spark_jobs.negatives import corpus, with_negatives
from spark_jobs.tables import replace, sha256
from training.shares import CategoryShares


def sample(
    clicks: DataFrame,
    profiles: dict[str, DataFrame],
    card: DatasetCard,
    window: Window,
    config: NightConfig,
    folder: Path,
    shares: CategoryShares | None = None,
) -> None:
    """The Spark half: positives with negatives, the test clicks and the states at the cut, in place of earlier ones.

    Args:
        clicks: All clicks, of which those before the cut count as known.
        profiles: The catalogues by side.
        shares: What the queries' counters count by category.
    """

    def write(staging: Path) -> None:
        before = with_columns(clicks.where(F.col("event_time") < window.cut), profiles["item"], shares)
        in_window = before.where(F.col("event_time") >= window.start)
        items = corpus(before, profiles["item"], card, window.start, window.cut)
        items.coalesce(1).write.parquet(str(staging / "corpus"))
        positives = with_negatives(in_window, staging / "corpus", config.negatives, config.negative_mix, config.seed)
        positives.orderBy("event_time", "event_id").write.parquet(str(staging / "positives"))
        test = clicks.where(F.col("event_time").between(window.cut, window.end - 1))
        columns = ("event_id", "query_id", "item_id", "event_time")
        test.select(*columns).orderBy("event_time", "event_id").write.parquet(str(staging / "test"))
        for side_name, known in profiles.items():
            listed = known.join(items.select("item_id"), "item_id", "semi") if side_name == "item" else known
            state = state_at(before, listed, side_name, card, shares if side_name == "query" else None)
            state.write.parquet(str(staging / f"{side_name}_state.parquet"))

    replace(folder, write)


def join(
    store: FeatureStore,
    card: DatasetCard,
    window: Window,
    config: NightConfig,
    folder: Path,
    on_rows: Callable[[int], None],
    shares: CategoryShares | None = None,
) -> None:
    """The Feast half: ``train/``, by the point-in-time join of both feature services.

    Args:
        on_rows: Told how many positives each step has joined.
    """
    positives = pq.read_table(folder / "positives").sort_by([("event_time", "ascending"), ("event_id", "ascending")])
    positives = positives.append_column("row_id", pa.array(np.arange(len(positives))))
    width = config.negatives + 1
    step = max(1, config.join_rows // width)

    def write(staging: Path) -> None:
        staging.mkdir()
        for number, start in enumerate(range(0, len(positives), step)):
            chunk = positives.slice(start, step)
            pq.write_table(_join_chunk(store, card, chunk, width), staging / f"part-{number:05d}.parquet")
            on_rows(len(chunk))

    replace(folder / "train", write)
    _write_card(folder, window, config, len(positives), shares)


def _join_chunk(store: FeatureStore, card: DatasetCard, rows: pa.Table, width: int) -> pa.Table:
    """Some positives with their features: query columns as they are, item columns as lists of 1+S."""
    columns = {name: rows[name] for name in ("row_id", "event_id", "query_id", "event_time", "candidates")}
    time = rows["event_time"].to_numpy()
    query = _features(store, card, "query", rows["query_id"], time)
    item = _features(store, card, "item", pc.list_flatten(rows["candidates"]), np.repeat(time, width))
    columns |= {f"query__{name}": values for name, values in query.items()}
    offsets = pa.array(np.arange(len(rows) + 1, dtype=np.int32) * width)
    columns |= {f"item__{name}": pa.ListArray.from_arrays(offsets, values) for name, values in item.items()}
    return pa.table(columns)


def _features(
    store: FeatureStore, card: DatasetCard, side_name: str, ids: pa.ChunkedArray, time: np.ndarray
) -> dict[str, pa.Array]:
    """What a tower reads of some ids, each just before its moment, in the order asked.

    The augmented vectors are left out: the trainer replays them, since they change with the weights.
    """
    key = f"{side_name}_id"
    # Feast's join takes features with time ≤ the label's. A click's own activity row has the click's time, so one
    # microsecond earlier is the last moment that does not know of it.
    stamps = pd.to_datetime(time * 1000 - 1, unit="us", utc=True)
    entities = pd.DataFrame({"n": np.arange(len(time)), key: ids.to_pandas(), "event_timestamp": stamps})
    names = [*(f"{side_name}_profile:{name}" for name in getattr(card, side_name).tower_features)]
    names += [f"{side_name}_activity:{name}" for name in ("clicks", "counters", "last_click")]
    # Late rows (created after the label) would leak: a retrained past must not know them.
    job = store.get_historical_features(entities, names, filter_by_created_timestamp=True)
    joined = job.to_arrow().sort_by("n")  # the join does not keep the order
    if len(joined) != len(time):
        raise RuntimeError(f"the {side_name} features came back as {len(joined)} rows for {len(time)} asked; "
                           f"look for duplicate rows in the offline history of {side_name}_profile")  # fmt: skip
    return {name: joined[name].combine_chunks() for name in (feature.split(":")[1] for feature in names)}


def _write_card(folder: Path, window: Window, config: NightConfig, rows: int, shares: CategoryShares | None) -> None:
    test = pq.read_table(folder / "test")
    known = {side: pq.read_table(folder / f"{side}_state.parquet", columns=["id"])["id"] for side in ("query", "item")}
    card = {
        "start": window.start,
        "cut": window.cut,
        "end": window.end,
        "rows": rows,
        "negatives": config.negatives,
        "seed": config.seed,
        "shares": shares.model_dump() if shares else None,
        "queries": len(known["query"]),
        "items": len(known["item"]),
        "test_clicks": len(test),
        "test_clicks_known_query": pc.sum(pc.is_in(test["query_id"], known["query"])).as_py() or 0,
        "test_clicks_known_item": pc.sum(pc.is_in(test["item_id"], known["item"])).as_py() or 0,
        "sha256": sha256(folder / "train"),
    }
    (folder / "card.json").write_text(json.dumps(card, indent=2))


def data_card(folder: Path) -> dict | None:
    """The data card of a finished training set; None if it is not finished."""
    path = folder / "card.json"
    return json.loads(path.read_text()) if path.is_file() else None


def folder_of(home: Path, day: date) -> Path:
    return home / "training_sets" / day.isoformat()
