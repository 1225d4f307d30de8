"""Training rows from positives: what both towers read, as of just before each click. Three joins, one answer.

``one_pass``: :mod:`spark_jobs.as_of`, for one machine, in time and memory that grow with the rows. ``duckdb`` and
``spark``: Feast's own historical retrieval by its two offline stores, the second for more than one machine. All write
``train/date=<YYYY-MM-DD>/``: a row a positive in order of time, query features as they are and item features as lists
of 1+S. The augmented vectors are left out: the trainer replays them, since they change with the weights.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from feast import FeatureStore
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import Window as Over
from pyspark.sql import functions as F

from feature_repo.card import DatasetCard
from spark_jobs.as_of import AsOf

SIDES = ("query", "item")
_COLUMNS = ("row_id", "event_id", "query_id", "event_time", "candidates")


def references(card: DatasetCard, side_name: str) -> dict[str, list[str]]:
    """What a tower reads of each view that the night writes, by view."""
    views = {f"{side_name}_profile": list(getattr(card, side_name).tower_features)}
    views[f"{side_name}_activity"] = ["clicks", "counters", "last_click"]
    return {view: features for view, features in views.items() if features}


def _just_before(time: np.ndarray) -> np.ndarray:
    """Clicks' times in ms → the last moments in µs that do not know of them.

    A point-in-time join takes features with time ≤ the label's, and a click's own activity row has the click's time.
    """
    return time * 1000 - 1


def days(positives: Path) -> Iterator[tuple[str, pa.Table]]:
    """The positives of each day in order of time, with ``row_id``, their number in the whole set."""
    done = 0
    for folder in sorted(positives.glob("date=*")):
        rows = pq.read_table(folder, partitioning=None)
        rows = rows.sort_by([("event_time", "ascending"), ("event_id", "ascending")])
        yield folder.name, rows.append_column("row_id", pa.array(np.arange(done, done + len(rows))))
        done += len(rows)


def one_pass(
    store: FeatureStore, card: DatasetCard, positives: Path, train: Path, on_rows: Callable[[int], None]
) -> None:
    """Write ``train`` day by day; memory holds two days' rows and the newest features of each id.

    Both sides are looked up at a time, and a day is written while the next one is joined: Arrow and NumPy do most of
    their work outside Python's lock.
    """
    histories = {
        side: [AsOf.of(store, view, names) for view, names in references(card, side).items()] for side in SIDES
    }

    def look_up(side: str, ids: pa.Array, moments: np.ndarray) -> dict[str, pa.Array]:
        found: dict[str, pa.Array] = {}
        for history in histories[side]:
            found |= history.before(ids, moments)
        return found

    with ThreadPoolExecutor(len(SIDES) + 1, "join") as pool:
        writing: Future | None = None
        for day, rows in days(positives):
            moments = _just_before(rows["event_time"].to_numpy())
            ids = {"query": rows["query_id"], "item": pc.list_flatten(rows["candidates"])}
            asked = [pool.submit(look_up, side, _whole(ids[side]), moments) for side in SIDES]
            query, item = (answer.result() for answer in asked)
            if writing:
                on_rows(writing.result())
            writing = pool.submit(_write_day, train / day, rows, query, item)
        if writing:
            on_rows(writing.result())


def feast_duckdb(
    store: FeatureStore, card: DatasetCard, positives: Path, train: Path, on_rows: Callable[[int], None], join_rows: int
) -> None:
    """Write ``train`` by Feast's DuckDB store, ``join_rows`` entity rows at a time.

    Its join makes a row of every earlier click of each candidate before it keeps the newest: for small markets only.
    """
    for day, rows in days(positives):
        width = len(rows["candidates"][0])
        step = max(1, join_rows // width)
        for number, start in enumerate(range(0, len(rows), step)):
            chunk = rows.slice(start, step)
            time = chunk["event_time"].to_numpy()
            query = _retrieve(store, card, "query", chunk["query_id"], time)
            item = _retrieve(store, card, "item", pc.list_flatten(chunk["candidates"]), np.repeat(time, width))
            on_rows(_write_day(train / day, chunk, query, item, number))


def _retrieve(
    store: FeatureStore, card: DatasetCard, side_name: str, ids: pa.ChunkedArray, time: np.ndarray
) -> dict[str, pa.Array]:
    """What a tower reads of some ids, each just before its moment, in the order asked."""
    stamps = pd.to_datetime(_just_before(time), unit="us", utc=True)
    entities = pd.DataFrame({"n": np.arange(len(time)), f"{side_name}_id": ids.to_pandas(), "event_timestamp": stamps})
    names = [f"{view}:{name}" for view, names in references(card, side_name).items() for name in names]
    # Late rows (created after the label) would leak: a retrained past must not know them.
    job = store.get_historical_features(entities, names, filter_by_created_timestamp=True)
    joined = job.to_arrow().sort_by("n")  # the join does not keep the order
    if len(joined) != len(time):
        raise RuntimeError(f"the {side_name} features came back as {len(joined)} rows for {len(time)} asked; "
                           f"look for duplicate rows in the offline history of {side_name}_profile")  # fmt: skip
    return {name: joined[name].combine_chunks() for name in (feature.split(":")[1] for feature in names)}


def _whole(values: pa.ChunkedArray | pa.Array) -> pa.Array:
    return values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values


def _write_day(
    folder: Path, rows: pa.Table, query: dict[str, pa.Array], item: dict[str, pa.Array], number: int = 0
) -> int:
    """Write rows with their features, as part ``number`` of the day; returns how many they are."""
    columns = {name: rows[name] for name in _COLUMNS}
    columns |= {f"query__{name}": values for name, values in query.items()}
    width = len(rows["candidates"][0])
    offsets = pa.array(np.arange(len(rows) + 1, dtype=np.int32) * width)
    columns |= {f"item__{name}": pa.ListArray.from_arrays(offsets, values) for name, values in item.items()}
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), folder / f"part-{number:05d}.parquet", row_group_size=100_000)
    return len(rows)


def feast_spark(spark: SparkSession, store: FeatureStore, card: DatasetCard, positives: Path, train: Path) -> None:
    """Write ``train`` by Feast's Spark store, whose definitions ``store`` has: all of it stays in Spark."""
    rows = spark.read.parquet(str(positives))
    sizes = {row["date"]: row["count"] for row in rows.groupBy("date").count().orderBy("date").collect()}
    before, done = {}, 0
    for day, size in sizes.items():
        before[day], done = done, done + size
    first = spark.createDataFrame(list(before.items()), "date date, start long")
    number = F.row_number().over(Over.partitionBy("date").orderBy("event_time", "event_id"))
    rows = rows.join(F.broadcast(first), "date").withColumn("row_id", F.col("start") + number - 1).drop("start")
    moment = F.timestamp_micros(F.col("event_time") * 1000 - 1).alias("event_timestamp")
    query = _retrieve_in_spark(store, card, "query", rows.select("row_id", "query_id", moment))
    flat = rows.select("row_id", moment, F.posexplode("candidates").alias("place", "item_id"))
    item = _retrieve_in_spark(store, card, "item", flat)
    names = [name for features in references(card, "item").values() for name in features]
    placed = F.array_sort(F.collect_list(F.struct("place", *names)))
    item = item.groupBy("row_id").agg(placed.alias("all"))
    item = item.select("row_id", *[F.col(f"all.{name}").alias(f"item__{name}") for name in names])
    whole = (
        rows.join(query, "row_id").join(item, "row_id").select("date", *_COLUMNS, *query.columns[1:], *item.columns[1:])
    )
    ordered = whole.repartition("date").sortWithinPartitions("date", "row_id")
    ordered.write.partitionBy("date").parquet(str(train))


def _retrieve_in_spark(store: FeatureStore, card: DatasetCard, side_name: str, entities: DataFrame) -> DataFrame:
    """Feast's answer with ``row_id`` and, for items, ``place``; query features as ``query__<name>``."""
    features = [f"{view}:{name}" for view, names in references(card, side_name).items() for name in names]
    job = store.get_historical_features(entities, features, filter_by_created_timestamp=True)
    entities.sparkSession.conf.set("spark.sql.parser.quotedRegexColumnNames", "false")  # Feast sets it, for everybody
    found = job.to_spark_df()
    kept = [F.col(name) for name in ("row_id", "place") if name in entities.columns]
    names = [feature.split(":")[1] for feature in features]
    prefix = "query__" if side_name == "query" else ""
    return found.select(*kept, *[F.col(name).alias(prefix + name) for name in names])
