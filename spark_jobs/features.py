"""Features as of their time, written to Feast's offline history.

``profile``: the catalogue's rows, known from the beginning (or from the item's creation). ``activity``: one row a
click, which holds the counters just after it; a training row asks for the moment just before its own click.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
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
    clicks: pa.Table,
    key: str,
    half_lives_ms: tuple[int, ...],
    shares: CategoryShares | None = None,
    start_ms: int | None = None,
) -> pa.Table:
    """Clicks in order of time → their keys' activity just after each: ``key, clicks, counters, last_click``, and
    ``first`` and ``until``: the times of the key's first click, and of the next one (null where there is none).

    Args:
        clicks: May begin with rows that carry an earlier state of a key (see :func:`carried`) instead of a click.
        start_ms: Leave out rows that are no longer the newest of their key then.
    """
    groups = clicks[key].combine_chunks().dictionary_encode().indices.to_numpy(zero_copy_only=False).astype(np.int64)
    times = clicks["event_time"].to_numpy()
    halves = all_half_lives(half_lives_ms, shares)
    gains = added(len(half_lives_ms), clicks["share_column"].to_numpy(), shares.width) if shares else None
    number, first = np.ones(len(times), np.int64), times.copy()
    if "clicks" in clicks.column_names:
        state = clicks["clicks"].is_valid().to_numpy()
        gains = np.ones((len(times), len(halves)), np.float32) if gains is None else gains
        # A key's state counts on as if it were one large click: the very sums that all its clicks would have given.
        gains[state] = pc.list_flatten(clicks["counters"]).to_numpy().reshape(-1, len(halves))
        number[state], first[state] = (clicks[name].filter(pa.array(state)).to_numpy() for name in ("clicks", "first"))
    counters = count_each(times, groups, halves, gains)
    order = np.argsort(groups, kind="stable")  # by key, then time
    begins = np.r_[True, groups[order][1:] != groups[order][:-1]] if len(order) else np.empty(0, bool)
    opening = order[begins][np.cumsum(begins) - 1]  # each key's first row, once a row
    clicked, since, until = np.empty_like(times), np.empty_like(times), np.zeros_like(times)
    clicked[order] = number[opening] + ranks_within(groups)[order]
    since[order] = first[opening]
    until[order[:-1]] = times[order[1:]]
    newest = np.empty(len(times), bool)
    newest[order] = np.r_[begins[1:], True][: len(order)]
    offsets = pa.array(np.arange(len(times) + 1, dtype=np.int32) * counters.shape[1])
    rows = pa.table(
        {
            key: clicks[key],
            "clicks": clicked,
            "counters": pa.ListArray.from_arrays(offsets, pa.array(counters.ravel())),
            "last_click": times,
            "first": since,
            "until": pa.array(until, mask=newest),
        }
    )
    kept = newest | (until > times)  # of a key's clicks at one moment the last
    if start_ms is not None:
        kept &= newest | (until >= start_ms)
    return rows.filter(pa.array(kept))


def activity(
    clicks: DataFrame,
    side_name: str,
    half_lives_ms: tuple[int, ...],
    shares: CategoryShares | None = None,
    start_ms: int | None = None,
    earlier: DataFrame | None = None,
) -> DataFrame:
    """A side's activity just after each click, as :func:`after_each` gives it, and Feast's timestamps.

    Of a key's clicks at the same moment only the last one's row is kept: a join that found several rows of one time
    would pick any. Keys are spread over tasks; within a task all keys' counters run together as arrays.

    Args:
        shares: What is counted by category behind the plain counters; the clicks are then :func:`with_columns`.
        start_ms: Leave out what is not the newest of its key then, nor later.
        earlier: The state of every key before the first of these clicks; None: they are all that there were.
    """
    key = f"{side_name}_id"
    rows = clicks.select(key, "event_time", *(["share_column"] if shares else []))
    if earlier is not None:
        nothing = [F.lit(0).cast("long").alias("share_column")] if shares else []
        state = earlier.select(key, F.col("last_click").alias("event_time"), *nothing, "clicks", "counters", "first")
        rows = rows.unionByName(state, allowMissingColumns=True)

    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        filled = [batch for batch in batches if len(batch)]
        if filled:
            # Clicks of one moment may come in any order: only what stands after all of them is kept.
            table = pa.Table.from_batches(filled).sort_by("event_time")
            yield from after_each(table, key, half_lives_ms, shares, start_ms).to_batches(max_chunksize=65_536)

    schema = f"{key} string, clicks long, counters array<float>, last_click long, first long, until long"
    stamp = F.timestamp_millis("last_click")
    made = rows.repartition(key).mapInArrow(run, schema)
    return made.select("*", stamp.alias("event_timestamp"), stamp.alias("created_timestamp"))


def as_of(history: DataFrame, moment_ms: int) -> DataFrame:
    """Of an activity history each key's newest row from before a moment that is not before the history's start."""
    later = F.col("until").isNull() | (F.col("until") >= moment_ms)
    return history.where((F.col("last_click") < moment_ms) & later)


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


def latest_each(clicks: pa.Table, length: int) -> pa.Table:
    """Clicks in order of time → each query's latest items: ``query_id, history`` (newest last), at most ``length``."""
    codes = clicks["query_id"].combine_chunks().dictionary_encode()
    groups = codes.indices.to_numpy()
    order = np.argsort(groups, kind="stable")
    counts = np.bincount(groups, minlength=len(codes.dictionary))
    number = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    latest = order[number >= np.repeat(counts, counts) - length]
    offsets = np.r_[0, np.cumsum(np.minimum(counts, length))].astype(np.int32)
    items = clicks["item_id"].combine_chunks().take(pa.array(latest))
    return pa.table({"query_id": codes.dictionary, "history": pa.ListArray.from_arrays(pa.array(offsets), items)})


def latest_items(clicks: DataFrame, length: int, earlier: DataFrame | None = None) -> DataFrame:
    """The items that each query clicked last, as :func:`latest_each` gives them.

    Args:
        earlier: The same of before these clicks.
    """
    tie = F.xxhash64("event_id").alias("tie")  # some order, and always the same

    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        filled = [batch for batch in batches if len(batch)]
        if filled:
            table = pa.Table.from_batches(filled).sort_by([("event_time", "ascending"), ("tie", "ascending")])
            yield from latest_each(table, length).to_batches(max_chunksize=65_536)

    rows = clicks.select("query_id", "item_id", "event_time", tie).repartition("query_id")
    found = rows.mapInArrow(run, "query_id string, history array<string>")
    if earlier is None:
        return found
    none = F.array().cast("array<string>")
    known, new = earlier.withColumnRenamed("history", "known"), found.withColumnRenamed("history", "new")
    both = F.concat(F.coalesce("known", none), F.coalesce("new", none))
    start = F.greatest(F.size(both) - length, F.lit(0)) + 1
    return known.join(new, "query_id", "full").select("query_id", F.slice(both, start, length).alias("history"))


def state_at(newest: DataFrame, profiles: DataFrame, side_name: str, card: DatasetCard) -> DataFrame:
    """Every id of a side at the cut: ``id``, profile and activity.

    Queries are those that have clicked; items also those that the catalogue has, from the moment that they exist.

    Args:
        newest: Each key's activity :func:`as_of` the cut.
    """
    key = f"{side_name}_id"
    side: Side = getattr(card, side_name)
    state = newest.select(key, "clicks", "counters", "last_click")
    joined = state.join(profiles.select(key, *side.features), key, "left" if side_name == "query" else "full")
    return joined.withColumnRenamed(key, "id")
