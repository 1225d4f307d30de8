"""The click lake: every click once, as Parquet by landing and event day.

``lake/clicks/landing=<name>/date=<YYYY-MM-DD>/*.parquet``, where a date is the first of a card's day. A landing (an
import of log files, or one micro-batch of the Kafka topic) replaces its own folder whole, so that landing it again
changes nothing. Late clicks lie under the day of their event. Readers drop an event that landed twice.
"""

from pathlib import Path

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from feature_repo.card import CardError, DatasetCard
from feature_repo.click_event import EARLIEST_MS, LATEST_MS
from feature_repo.source import UNIT_MS
from spark_jobs.days import day_column
from spark_jobs.tables import replace

COLUMNS = ("event_id", "query_id", "item_id", "event_time", "partition", "offset")


def _valid(clicks: DataFrame) -> DataFrame:
    ids = [(F.length(name) > 0) & (F.length(name) <= 256) for name in ("event_id", "query_id", "item_id")]
    return clicks.where(ids[0] & ids[1] & ids[2] & F.col("event_time").between(EARLIEST_MS, LATEST_MS - 1))


def read_log(spark: SparkSession, card: DatasetCard, folder: Path) -> DataFrame:
    """The clicks of the log files that a card describes. An event's id is the hash of its query, item and time.

    Raises:
        CardError: a file or a column is missing.
    """
    spec = card.clicks
    paths = [spec.path] if isinstance(spec.path, str) else spec.path
    files = [str(file) for pattern in paths for file in sorted(folder.glob(pattern))]
    if not files:
        raise CardError(f"no file {', '.join(paths)} in {folder}; the dataset card names it")
    if files[0].endswith(".parquet"):
        raw = spark.read.parquet(*files)
    else:
        raw = spark.read.csv(files, sep=spec.separator, header=True)
    missing = [name for name in (spec.query, spec.item, spec.time) if name not in raw.columns]
    if missing:
        raise CardError(f"{files[0]} lacks the column {', '.join(missing)}; it has: {', '.join(raw.columns)}")
    query, item, time = (F.col(f"`{name}`") for name in (spec.query, spec.item, spec.time))
    time_ms = F.round(time.cast("double") * UNIT_MS[spec.time_unit]).cast("long")
    clicks = raw.select(
        query.cast("string").alias("query_id"), item.cast("string").alias("item_id"), time_ms.alias("event_time")
    )
    return clicks.select(
        F.md5(F.concat_ws("\x1f", *clicks.columns)).alias("event_id"),
        "*",
        F.lit(None).cast("int").alias("partition"),
        F.lit(None).cast("long").alias("offset"),
    )


def land(clicks: DataFrame, card: DatasetCard, lake: Path, landing: str) -> None:
    """Write a landing's valid clicks by event date, in place of what it wrote before."""

    def write(folder: Path) -> None:
        dated = _valid(clicks).withColumn("date", day_column(card, F.col("event_time")))
        by_date = dated.repartition("date").sortWithinPartitions("date", "event_time", "event_id")
        by_date.write.partitionBy("date").parquet(str(folder))

    replace(lake / f"landing={landing}", write)


def land_kafka(
    spark: SparkSession, card: DatasetCard, bootstrap: str, topic: str, lake: Path, checkpoint: Path
) -> None:
    """Land what has arrived on the click topic since the last time: exactly once, over restarts.

    The checkpoint numbers the micro-batches and fixes their offsets before they are read; a batch that is run again
    after a crash has the same number and replaces its own landing.
    """
    schema = T.StructType(
        [T.StructField(name, T.StringType()) for name in ("event_id", "query_id", "item_id")]
        + [T.StructField("event_time", T.LongType())]
    )
    stream = (
        spark.readStream.format("kafka")
        .option("kafka.bootstrap.servers", bootstrap)
        .option("kafka.isolation.level", "read_committed")
        .option("subscribe", topic)
        .option("startingOffsets", "earliest")
        .load()
    )
    parsed = stream.select(F.from_json(F.col("value").cast("string"), schema).alias("click"), "partition", "offset")
    flat = parsed.select("click.*", "partition", "offset").where(F.col("event_id").isNotNull())

    def write(batch: DataFrame, number: int) -> None:
        land(batch, card, lake, f"kafka-{number:09d}")

    query = (
        flat.writeStream.foreachBatch(write)
        .option("checkpointLocation", str(checkpoint))
        .trigger(availableNow=True)
        .start()
    )
    query.awaitTermination()


def read_lake(spark: SparkSession, card: DatasetCard, lake: Path, until_ms: int | None = None) -> DataFrame:
    """All clicks before ``until_ms``, each event once, whatever landed it: columns ``COLUMNS``.

    Raises:
        CardError: nothing has landed.
    """
    if not any(lake.glob("landing=*/date=*")):
        raise CardError(f"the click lake {lake} is empty; land a log first: dat nightly --data NAME")
    clicks = spark.read.parquet(str(lake))
    if until_ms is not None:
        clicks = clicks.where((F.col("date") <= day_column(card, F.lit(until_ms))) & (F.col("event_time") < until_ms))
    # max over whole rows: which of two landings of an event is kept must not depend on the order of reading, and one
    # that knows its place in Kafka (null sorts first) goes before one that does not.
    once = clicks.groupBy("event_id").agg(F.max(F.struct(*COLUMNS[1:])).alias("click"))
    return once.select("event_id", "click.*")
