"""Features as of their time, written to Feast's offline history.

``profile``: the catalogue's rows, known from the beginning (or from the item's creation). ``activity``: one row a
click, which holds the counters just after it; a training row asks for the moment just before its own click.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from feature_repo.card import CardError, DatasetCard, Side
from spark_jobs.tables import replace
from training.activity import count_each
from training.amm import ranks_within
from training.shares import CategoryShares, added, all_half_lives

_SPARK_TYPES = {"category": "string", "number": "float", "time": "long", "text": "string"}


def read_profiles(spark: SparkSession, card: DatasetCard, folder: Path, side_name: str) -> DataFrame:
    """A side's catalogue with Feast's columns: ``<side>_id``, a column a feature, ``known``, the two timestamps.

    Raises:
        CardError: a file or a column is missing.
    """
    side: Side = getattr(card, side_name)
    key = f"{side_name}_id"
    epoch = F.lit(0).cast("timestamp")
    if side.table is None:
        columns = ", ".join(
            f"{name} {_SPARK_TYPES.get(field.kind, 'array<string>')}" for name, field in side.features.items()
        )
        empty = spark.createDataFrame([], f"{key} string{', ' if columns else ''}{columns}")
        return empty.select(
            "*", F.lit(1).cast("long").alias("known"), epoch.alias("event_timestamp"), epoch.alias("created_timestamp")
        )
    path = folder / side.table.path
    if not path.exists():
        raise CardError(f"{path} does not exist; the dataset card names it")
    raw = (
        spark.read.parquet(str(path))
        if path.suffix == ".parquet"
        else spark.read.csv(str(path), sep=side.table.separator, header=True)
    )
    wanted = [side.table.id, *(field.column for field in side.features.values())]
    missing = [name for name in wanted if name not in raw.columns]
    if missing:
        raise CardError(f"{path} lacks the column {', '.join(missing)}; it has: {', '.join(raw.columns)}")
    features = []
    for name, field in side.features.items():
        column = F.col(f"`{field.column}`")
        if field.kind == "categories":
            parts = F.split(F.coalesce(column.cast("string"), F.lit("")), f"\\Q{field.separator}\\E")
            features.append(F.array_remove(parts, "").alias(name))
        else:
            features.append(column.cast(_SPARK_TYPES[field.kind]).alias(name))
    known = raw.select(F.col(f"`{side.table.id}`").cast("string").alias(key), *features).dropDuplicates([key])
    since = F.timestamp_millis(F.coalesce(side.created, F.lit(0))) if side.created else epoch
    return known.select(
        "*", F.lit(1).cast("long").alias("known"), since.alias("event_timestamp"), since.alias("created_timestamp")
    )


def first_category(items: DataFrame, feature: str) -> DataFrame:
    """``item_id, category``: the first value of the feature that is the items' category, null where there is none."""
    column = F.col(feature)
    if items.schema[feature].dataType.typeName() == "array":
        column = F.when(F.size(column) > 0, F.element_at(column, 1))
    return items.select("item_id", column.alias("category"))


def category_shares(
    clicks: DataFrame, items: DataFrame, card: DatasetCard, parent: CategoryShares | None
) -> CategoryShares | None:
    """What queries' clicks are counted by: the most clicked categories, or those that the parent bundle counts by.

    A retrained tower starts from its parent's weights, so its columns must stay what they were.
    """
    asked = CategoryShares.of(card, {})
    if asked is None or (parent and asked == parent.model_copy(update={"categories": []})):
        return asked and parent
    clicked = clicks.join(first_category(items, card.item.category), "item_id").where("category IS NOT NULL")
    return CategoryShares.of(
        card, {row["category"]: row["count"] for row in clicked.groupBy("category").count().collect()}
    )


def with_columns(clicks: DataFrame, items: DataFrame, shares: CategoryShares | None) -> DataFrame:
    """Clicks with ``share_column``, the column that each counts in; as they are if nothing is counted by category."""
    if shares is None:
        return clicks
    places = clicks.sparkSession.createDataFrame(
        [(name, column) for column, name in enumerate(shares.categories)], "category string, share_column long"
    )
    columns = first_category(items, shares.feature).join(F.broadcast(places), "category").drop("category")
    return clicks.join(columns, "item_id", "left").na.fill(shares.width - 1, ["share_column"])


def after_each(
    clicks: pa.Table, key: str, half_lives_ms: tuple[int, ...], shares: CategoryShares | None = None
) -> pa.Table:
    """Clicks in order of time → their keys' activity just after each: ``key, clicks, counters, last_click``."""
    groups = clicks[key].combine_chunks().dictionary_encode().indices.to_numpy(zero_copy_only=False).astype(np.int64)
    times = clicks["event_time"].to_numpy()
    gains = added(len(half_lives_ms), clicks["share_column"].to_numpy(), shares.width) if shares else None
    counters = count_each(times, groups, all_half_lives(half_lives_ms, shares), gains)
    offsets = pa.array(np.arange(len(times) + 1, dtype=np.int32) * counters.shape[1])
    rows = pa.table(
        {
            key: clicks[key],
            "clicks": pa.array(ranks_within(groups) + 1, pa.int64()),
            "counters": pa.ListArray.from_arrays(offsets, pa.array(counters.ravel())),
            "last_click": times,
        }
    )
    return rows.filter(pa.array(last_of_moment(groups, times)))


def activity(
    clicks: DataFrame, side_name: str, half_lives_ms: tuple[int, ...], shares: CategoryShares | None = None
) -> DataFrame:
    """A side's activity just after each click: ``<side>_id, clicks, counters, last_click`` and the timestamps.

    Of a key's clicks at the same moment only the last one's row is kept: a join that found several rows of one time
    would pick any. Keys are spread over tasks; within a task all keys' counters run together as arrays.

    Args:
        shares: What is counted by category behind the plain counters; the clicks are then :func:`with_columns`.
    """
    key = f"{side_name}_id"
    wanted = [key, "event_time", "event_id", *(["share_column"] if shares else [])]
    ordered = clicks.select(*wanted).repartition(key).sortWithinPartitions("event_time", "event_id")

    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        filled = [batch for batch in batches if len(batch)]
        if filled:
            table = pa.Table.from_batches(filled)
            yield from after_each(table, key, half_lives_ms, shares).to_batches(max_chunksize=65_536)

    rows = ordered.mapInArrow(run, f"{key} string, clicks long, counters array<float>, last_click long")
    stamp = F.timestamp_millis("last_click")
    return rows.select("*", stamp.alias("event_timestamp"), stamp.alias("created_timestamp"))


def last_of_moment(groups: np.ndarray, times: np.ndarray) -> np.ndarray:
    """[N] clicks in order of time → whether each is its key's last one at its time: [N] bool."""
    order = np.argsort(groups, kind="stable")
    key, time = groups[order], times[order]
    last = np.empty(len(groups), bool)
    last[order] = np.r_[(key[1:] != key[:-1]) | (time[1:] != time[:-1]), True]
    return last


def write_history(rows: DataFrame, offline: Path, view: str, partition: str = "all") -> None:
    """Write rows as a view's offline history, in place of what the partition held."""
    # Small row groups: who asks for one day's rows skips the others by their times.
    replace(
        offline / view / f"part={partition}",
        lambda folder: rows.write.option("parquet.block.size", 4 << 20).parquet(str(folder)),
    )


def read_history(spark: SparkSession, offline: Path, view: str) -> DataFrame:
    """What :func:`write_history` wrote."""
    return spark.read.parquet(str(offline / view / "part=all"))


def state_at(
    clicks: DataFrame, activity: DataFrame, profiles: DataFrame, side_name: str, card: DatasetCard
) -> DataFrame:
    """Every id of a side at the cut: ``id``, profile, activity and, for queries, history.

    Queries are those that have clicked; items also those that the catalogue has, from the moment that they exist.

    Args:
        clicks, activity: All clicks before the cut, and the activity after each.
    """
    key = f"{side_name}_id"
    side: Side = getattr(card, side_name)
    newest = activity.groupBy(key).agg(F.max(F.struct("last_click", "clicks", "counters")).alias("last"))
    state = newest.select(key, "last.clicks", "last.counters", "last.last_click")
    if side_name == "query":
        past = clicks.groupBy(key).agg(
            F.transform(
                F.array_sort(F.collect_list(F.struct("event_time", "event_id", "item_id"))), lambda x: x.item_id
            ).alias("all")
        )
        size = F.size("all")
        start = F.greatest(size - card.history, F.lit(0)) + 1
        history = past.select(key, F.slice("all", start, F.lit(card.history)).alias("history"))
        state = state.join(history, key)
    facts = profiles.select(key, *side.features)
    joined = state.join(facts, key, "left" if side_name == "query" else "full")
    return joined.withColumnRenamed(key, "id").orderBy("id")
