"""What queries and items have clicked and been clicked: as of a moment, and just after each click.

Feast's offline history and the states at a window's start come from here, by Spark's SQL alone. The trainer's replay
computes the same by :mod:`model.counters`; each night holds the two to each other (:mod:`spark_jobs.feast_check`).
"""

from pyspark.sql import Column, DataFrame
from pyspark.sql import Window as Over
from pyspark.sql import functions as F

EPOCH = 512
"""Half-lives in an epoch. Within one a click's weight grows to 2^512, which a double holds; what is older than the
epoch before is worth less than 2^-512, which no counter shows."""


def rows_of(clicks: DataFrame, key: str, half_lives_ms: tuple[int, ...], earlier: DataFrame | None) -> DataFrame:
    """Clicks, and the keys' states before them, as rows that count alike: key, event_time, clicks, weight, first.

    A click counts as its weight, and a state as one large click at its last one: the very sums that all its clicks
    would give.
    """
    weight = F.array(*[F.col("weight").cast("double")] * len(half_lives_ms))
    rows = clicks.select(
        key,
        "event_time",
        F.lit(1).cast("long").alias("clicks"),
        weight.alias("weight"),
        F.col("event_time").alias("first"),
    )
    if earlier is None:
        return rows
    state = earlier.select(
        key, F.col("last_click").alias("event_time"), "clicks", F.col("counters").alias("weight"), "first"
    )
    return rows.unionByName(state)


def state_after(
    clicks: DataFrame, key: str, half_lives_ms: tuple[int, ...], earlier: DataFrame | None = None
) -> DataFrame:
    """Each key's activity after some clicks: ``key, clicks, counters, last_click, first`` (ms of its first click ever);
    counters [H] as of last_click.

    Args:
        earlier: The same of before these clicks; None: they are all that there were.
    """
    rows = rows_of(clicks, key, half_lives_ms, earlier)
    dated = rows.withColumn("last_click", F.max("event_time").over(Over.partitionBy(key)))
    age = F.col("last_click") - F.col("event_time")
    counters = [
        F.sum(F.col("weight")[k] * F.pow(F.lit(2.0), -age / F.lit(float(half)))) for k, half in enumerate(half_lives_ms)
    ]
    return dated.groupBy(key).agg(
        F.sum("clicks").alias("clicks"), F.array(*counters).alias("counters"), F.max("last_click").alias("last_click"),
        F.min("first").alias("first"),
    )  # fmt: skip


def history(clicks: DataFrame, key: str, half_lives_ms: tuple[int, ...], earlier: DataFrame | None = None) -> DataFrame:
    """Each key's activity just after each moment at which it was clicked, with Feast's two timestamps.

    The states of ``earlier`` are among the rows, as of their last clicks.
    """
    rows = rows_of(clicks, key, half_lives_ms, earlier)
    until_now = (Over.unboundedPreceding, Over.currentRow)  # of a moment all clicks: they are peers of one another
    whole = Over.partitionBy(key).orderBy("event_time").rangeBetween(*until_now)
    counted = rows.select(key, "event_time", F.sum("clicks").over(whole).alias("clicks"), "weight")
    for k, half in enumerate(half_lives_ms):
        counted = _with_counter(counted, key, k, half)
    counters = F.array(*[F.col(f"counter_{k}").cast("float") for k in range(len(half_lives_ms))])
    moments = counted.select(
        key, "clicks", counters.alias("counters"), F.col("event_time").alias("last_click"),
        F.timestamp_millis("event_time").alias("event_timestamp"),
        F.timestamp_millis("event_time").alias("created_timestamp"),
    )  # fmt: skip
    return moments.dropDuplicates([key, "last_click"])


def _with_counter(rows: DataFrame, key: str, k: int, half_life_ms: int) -> DataFrame:
    """The decayed sum of the k-th weight up to each row, as ``counter_k``."""
    length = half_life_ms * EPOCH
    rows = rows.withColumn("epoch", F.floor(F.col("event_time") / F.lit(length)))
    into = (F.col("event_time") - F.col("epoch") * F.lit(length)) / F.lit(float(half_life_ms))  # half-lives
    grown = F.col("weight")[k] * F.pow(F.lit(2.0), into)
    within = Over.partitionBy(key, "epoch").orderBy("event_time")
    rows = rows.withColumn("sum", F.sum(grown).over(within.rangeBetween(Over.unboundedPreceding, Over.currentRow)))
    # The last sum of the epoch before, if that is the one just before.
    ends = rows.groupBy(key, "epoch").agg(F.max("sum").alias("before"))
    ends = ends.withColumn("epoch", F.col("epoch") + 1)
    total = F.col("sum") + F.coalesce("before", F.lit(0.0)) * F.lit(2.0**-EPOCH)
    joined = rows.join(ends, [key, "epoch"], "left")
    return joined.withColumn(f"counter_{k}", total / F.pow(F.lit(2.0), into)).drop("epoch", "sum", "before")


def recent_items(clicks: DataFrame, length: int, order: list[Column], earlier: DataFrame | None = None) -> DataFrame:
    """The items that each query clicked last: ``query_id, history`` (newest last), at most ``length``.

    Args:
        order: The order of the fold.
        earlier: The same of before these clicks.
    """
    newest = Over.partitionBy("query_id").orderBy(*[column.desc() for column in order])
    ranked = clicks.select("query_id", "item_id", F.row_number().over(newest).alias("rank")).where(
        F.col("rank") <= length
    )
    listed = F.sort_array(F.collect_list(F.struct((-F.col("rank")).alias("rank"), "item_id")))
    found = ranked.groupBy("query_id").agg(listed.getField("item_id").alias("history"))
    if earlier is None:
        return found
    nothing = F.array().cast("array<string>")
    known, new = earlier.withColumnRenamed("history", "known"), found.withColumnRenamed("history", "new")
    both = F.concat(F.coalesce("known", nothing), F.coalesce("new", nothing))
    start = F.greatest(F.size(both) - length, F.lit(0)) + 1
    return known.join(new, "query_id", "full").select("query_id", F.slice(both, start, length).alias("history"))
