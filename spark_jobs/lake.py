"""The click lake: every click once, as Parquet by landing and event day.

``lake/clicks/landing=<name>/date=<YYYY-MM-DD>/*.parquet``, where a date is the first of a card's day. A landing (an
import of log files, or one micro-batch of the Kafka topic) replaces its own folder whole, so that landing it again
changes nothing, and holds each event once. Late clicks lie under the day of their event. A date that several landings
share is compacted into one by :func:`compact`; until then readers drop an event that landed twice.
"""

import hashlib
import re
import shutil
from datetime import UTC, datetime
from functools import reduce
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.errors import StreamingQueryException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import Window as Over
from pyspark.sql import functions as F
from pyspark.sql import types as T

from feature_repo.card import CardError, Clicks, DatasetCard
from feature_repo.click_event import EARLIEST_MS, LATEST_MS
from feature_repo.source import SPAN_MS, UNIT_MS
from spark_jobs.days import day_column
from spark_jobs.lock import only_one
from spark_jobs.tables import replace

COLUMNS = ("event_id", "query_id", "item_id", "event_time", "partition", "offset")


class LakeError(RuntimeError):
    """The click lake cannot be used as it is. The message says why and what to do."""


def _valid() -> Column:
    ids = [F.length(name).between(1, 256) for name in ("event_id", "query_id", "item_id")]
    return F.coalesce(ids[0] & ids[1] & ids[2] & F.col("event_time").between(EARLIEST_MS, LATEST_MS - 1), F.lit(False))


def _clicks_of(spark: SparkSession, file: str, spec: Clicks) -> DataFrame:
    raw = (
        spark.read.parquet(file) if file.endswith(".parquet") else spark.read.csv(file, sep=spec.separator, header=True)
    )
    missing = [name for name in (spec.query, spec.item, spec.time) if name not in raw.columns]
    if missing:
        raise CardError(f"{file} lacks the column {', '.join(missing)}; it has: {', '.join(raw.columns)}")
    query, item, time = (F.col(f"`{name}`") for name in (spec.query, spec.item, spec.time))
    if spec.time_unit == "date":
        time_ms = F.unix_millis(F.to_timestamp(time))
    else:
        time_ms = F.round(time.try_cast("double") * UNIT_MS[spec.time_unit]).cast("long")
    return raw.select(
        query.cast("string").alias("query_id"), item.cast("string").alias("item_id"), time_ms.alias("event_time")
    )


def read_log(spark: SparkSession, card: DatasetCard, folder: Path) -> DataFrame:
    """The clicks of the log files that a card describes. An event's id is the hash of its query, item and time.

    A log of positions gets moments of the first day that there can be: see :func:`_side_by_side`.

    Raises:
        CardError: a file or a column is missing.
    """
    spec = card.clicks
    paths = [spec.path] if isinstance(spec.path, str) else spec.path
    files = [str(file) for pattern in paths for file in sorted(folder.glob(pattern))]
    if not files:
        raise CardError(f"no file {', '.join(paths)} in {folder}; the dataset card names it")
    # Each file by itself: their columns may be of other types or in another order.
    clicks = reduce(DataFrame.unionByName, [_clicks_of(spark, file, spec) for file in files])
    clicks = clicks.select(
        F.md5(F.concat_ws("\x1f", *clicks.columns)).alias("event_id"),
        "*",
        F.lit(None).cast("int").alias("partition"),
        F.lit(None).cast("long").alias("offset"),
    )
    return _side_by_side(clicks) if spec.time_unit == "position" else clicks


def _side_by_side(clicks: DataFrame) -> DataFrame:
    """Clicks whose times are positions, with moments of one common span, over which each query's clicks are spread: as
    ``dat evaluate`` spreads them, but for where in step each query begins, which is a hash of its id here.
    """
    query = Over.partitionBy("query_id")
    number = F.row_number().over(query.orderBy("event_time", "item_id")) - 1
    step = F.pmod(F.xxhash64("query_id"), F.lit(1 << 20)) / (1 << 20)
    moment = F.floor((number + step) / F.count("*").over(query) * SPAN_MS).cast("long") + EARLIEST_MS
    return clicks.withColumn("event_time", F.when(F.col("event_time").isNotNull(), moment))


def count_valid(clicks: DataFrame) -> tuple[int, int, pd.DataFrame]:
    """How many clicks there are, how many of them can be landed, and a few that cannot."""
    total, valid = clicks.agg(F.count("*"), F.count_if(_valid())).first()
    bad = clicks.where(~_valid()).select("query_id", "item_id", "event_time").limit(3)
    return total, valid, bad.toPandas() if valid < total else pd.DataFrame()


def _once(clicks: DataFrame, *within: str) -> DataFrame:
    """Each event once. Which row of it is kept must not depend on the order of reading: the greatest, so that one that
    knows its place in Kafka goes before one that does not (null sorts first).
    """
    once = clicks.groupBy(*within, "event_id").agg(F.max(F.struct(*COLUMNS[1:])).alias("click"))
    return once.select(*within, "event_id", "click.*")


def land(clicks: DataFrame, card: DatasetCard, lake: Path, landing: str) -> None:
    """Write a landing's valid clicks by event date, in place of what it wrote before."""

    def write(folder: Path) -> None:
        dated = clicks.where(_valid()).withColumn("date", day_column(card, F.col("event_time")))
        by_date = _once(dated, "date").repartition("date").sortWithinPartitions("date", "event_time", "event_id")
        by_date.write.partitionBy("date").parquet(str(folder))

    replace(lake / f"landing={landing}", write)


def land_kafka(
    spark: SparkSession, card: DatasetCard, bootstrap: str, topic: str, lake: Path, checkpoint: Path,
    every: str | None = None, at_most: int = 2_000_000,
) -> None:  # fmt: skip
    """Land what has arrived on the click topic since the last time: exactly once, over restarts.

    The checkpoint numbers the micro-batches and fixes their offsets before they are read; a batch that is run again
    after a crash has the same number and replaces its own landing.

    Args:
        every: Stay, and land what is new this often (``1 minute``); None: land what there is, and return.
        at_most: Records in one micro-batch, which bounds the memory that a backlog takes.

    Raises:
        LakeError: Kafka no longer has what comes next, or cannot be read.
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
        .option("maxOffsetsPerTrigger", at_most)
        .load()
    )
    parsed = stream.select(F.from_json(F.col("value").cast("string"), schema).alias("click"), "partition", "offset")
    flat = parsed.select("click.*", "partition", "offset").where(F.col("event_id").isNotNull())

    def write(batch: DataFrame, number: int) -> None:
        land(batch, card, lake, f"kafka-{number:09d}")

    trigger = {"processingTime": every} if every else {"availableNow": True}
    query = (
        flat.writeStream.foreachBatch(write).option("checkpointLocation", str(checkpoint)).trigger(**trigger).start()
    )
    try:
        query.awaitTermination()
    except StreamingQueryException as error:
        raise LakeError(
            f"the topic {topic} at {bootstrap} could not be landed: {str(error).splitlines()[0]}"
        ) from error
    finally:
        query.stop()


def land_new(
    spark: SparkSession, card: DatasetCard, home: Path, bootstrap: str, topic: str, every: str | None = None,
    at_most: int = 2_000_000,
) -> bool:  # fmt: skip
    """:func:`land_kafka` into a home's lake, then :func:`compact`; one process at a time.

    Returns:
        Whether it was ours to do: False where another process lands the topic already (``dat lake --follow``).
    """
    lake = home / "lake" / "clicks"
    with only_one(home / "lake" / "lock") as ours:
        if ours:
            land_kafka(spark, card, bootstrap, topic, lake, home / "lake" / "checkpoint", every, at_most)
            compact(spark, lake)
    return ours


def compact(spark: SparkSession, lake: Path) -> int:
    """Make one sorted landing of every date that several share; returns how many dates that were.

    The new landing has a name of its own and appears whole; only then are the date's older ones deleted. A crash in
    between leaves events that landed twice, which readers drop and the next compaction removes.
    """
    crowded = {date: landings for date, landings in _landings(lake).items() if len(landings) > 1}
    numbers = [int(found[1]) for path in lake.glob("landing=*") if (found := re.fullmatch(_COMPACTED, path.name))]
    target = lake / f"landing=compacted-{max(numbers, default=0) + 1:06d}"
    for date, landings in sorted(crowded.items()):
        once = _once(_read(spark, [lake / landing / date for landing in landings]))
        final = target / date
        replace(
            final,
            lambda folder, once=once: (
                once.coalesce(1).sortWithinPartitions("event_time", "event_id").write.parquet(str(folder))
            ),
        )
        for landing in landings:
            shutil.rmtree(lake / landing / date)
            # The log's folder stays, empty: it says that the log has landed.
            if landing != "landing=log" and not any((lake / landing).glob("date=*")):
                shutil.rmtree(lake / landing)
    return len(crowded)


_COMPACTED = r"landing=compacted-(\d+)"


def _landings(lake: Path) -> dict[str, list[str]]:
    """The landings of each date: ``{"date=2023-11-15": ["landing=log", …]}``."""
    found: dict[str, list[str]] = {}
    for path in sorted(lake.glob("landing=*/date=*")):
        found.setdefault(path.name, []).append(path.parent.name)
    return found


def dates(lake: Path) -> list[str]:
    """The dates that have clicks, ``YYYY-MM-DD``, in order."""
    return sorted(date.removeprefix("date=") for date in _landings(lake))


def fingerprints(lake: Path) -> dict[str, str]:
    """What the files of each date are, by name and size: a file's name is its own, and files do not change."""
    found: dict[str, list] = {}
    for file in sorted(lake.glob("landing=*/date=*/*.parquet")):
        found.setdefault(file.parent.name.removeprefix("date="), []).append((file.name, file.stat().st_size))
    return {date: hashlib.sha256(repr(files).encode()).hexdigest()[:16] for date, files in found.items()}


def before(dates: dict[str, str], moment_ms: int) -> dict[str, str]:
    """Those of some dates that begin before a moment."""
    until = datetime.fromtimestamp(moment_ms / 1000, UTC)
    return {date: of for date, of in dates.items() if datetime.fromisoformat(date).replace(tzinfo=UTC) < until}


def _read(spark: SparkSession, folders: list[Path]) -> DataFrame:
    # The schema is given: Spark would take it from any one file, and read a column that others lack as null.
    return spark.read.schema(_SCHEMA).parquet(*map(str, folders))


_SCHEMA = "event_id string, query_id string, item_id string, event_time long, partition int, offset long"


def check_files(lake: Path) -> int:
    """Look at the end of every file, which Parquet writes last; returns how many clicks they say they have.

    Raises:
        LakeError: a file is cut off or is not Parquet, or lacks a column.
    """
    clicks = 0
    for file in sorted(lake.glob("landing=*/date=*/*.parquet")):
        try:
            metadata = pq.read_metadata(file)
        except (pa.ArrowInvalid, OSError) as error:
            raise LakeError(
                f"{file} is damaged ({str(error).splitlines()[0]}); delete it and land its clicks again"
            ) from None
        have = metadata.schema.names
        missing = [name for name in COLUMNS if name not in have]
        if missing:
            raise LakeError(f"{file} lacks the column {', '.join(missing)}; it has: {', '.join(have)}")
        clicks += metadata.num_rows
    return clicks


def read_lake(spark: SparkSession, card: DatasetCard, lake: Path) -> DataFrame:
    """All clicks, each event once, whatever landed it: columns ``COLUMNS``.

    Only dates that several landings share are searched for events that landed twice.

    Raises:
        CardError: nothing has landed. LakeError: a file is damaged.
    """
    landings = _landings(lake)
    if not landings:
        raise CardError(f"the click lake {lake} is empty; land a log first: dat nightly --data NAME")
    # A task holds its keys' clicks in memory, so there must be more tasks where there are more clicks.
    spark.conf.set("spark.sql.shuffle.partitions", max(8, check_files(lake) // 500_000))
    alone = [lake / names[0] / date for date, names in landings.items() if len(names) == 1]
    shared = [lake / name / date for date, names in landings.items() if len(names) > 1 for name in names]
    parts = [_read(spark, alone)] if alone else []
    if shared:
        dated = _read(spark, shared).withColumn("date", day_column(card, F.col("event_time")))
        parts.append(_once(dated, "date").drop("date"))
    return parts[0].unionByName(parts[1]) if len(parts) == 2 else parts[0]
