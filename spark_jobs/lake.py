"""The click lake: every click once, as Parquet by landing and event day.

``lake/clicks/landing=<name>/date=<YYYY-MM-DD>/*.parquet``, where a date is the first of a card's day. A landing (an
import of log files, or a range of the Kafka topic: :mod:`spark_jobs.land_kafka`) replaces its own folder whole, so that
landing it again changes nothing, and holds each event once. Late clicks lie under the day of their event. A date that
several landings of Kafka share is compacted into one by :func:`compact`; until then readers drop an event that landed
twice. Landings of log files (``log-…``: :mod:`spark_jobs.land_log`) leave out what the lake has, and stay as they are.
No landing holds clicks that are forgotten (:mod:`spark_jobs.forgotten`); what landed before is rewritten
(:mod:`spark_jobs.forget`).
"""

import hashlib
import re
from collections.abc import Iterable
from datetime import date, datetime, timedelta
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow.parquet import FileMetaData
from pyspark.sql import Column, DataFrame, Observation, SparkSession
from pyspark.sql import functions as F

from feature_repo.card import CardError, DatasetCard
from feature_repo.event_rule import EventRule
from feature_repo.place import Place, UrlPath, parquet_metadata, read_parquet
from feature_repo.table import delete_table, files_of_tables, table_of, write_table, write_text
from model.click import EARLIEST_MS, LATEST_MS
from model.newest_day import DayCount
from model.windows import begins, day_of
from spark_jobs.day_column import day_column
from spark_jobs.forgotten import known, remember

COLUMNS = ("event_id", "query_id", "item_id", "event_time", "partition", "offset", "event_type", "value", "position")
PARTS_A_DAY = 24
ALWAYS = COLUMNS[:6]  # what every file has had from the first version of the lake on


class LakeError(RuntimeError):
    """The click lake cannot be used as it is. The message says why and what to do."""


def valid() -> Column:
    ids = [F.length(name).between(1, 256) for name in ("event_id", "query_id", "item_id")]
    return F.coalesce(ids[0] & ids[1] & ids[2] & F.col("event_time").between(EARLIEST_MS, LATEST_MS - 1), F.lit(False))


def _once(clicks: DataFrame, *within: str) -> DataFrame:
    """Each event once. Which row of it is kept must not depend on the order of reading: the earliest that knows its
    place in Kafka, as the stream counts the first and drops the rest; a row of a log file only where there is none.
    """
    place = F.struct(F.col("offset").isNull(), "offset", *COLUMNS[1:-1])
    once = clicks.groupBy(*within, "event_id").agg(F.min_by(F.struct(*COLUMNS[1:]), place).alias("click"))
    return once.select(*within, "event_id", "click.*")


def land(clicks: DataFrame, card: DatasetCard, lake: Place, landing: str) -> None:
    """Write a landing's valid clicks by event date, in place of what it wrote before; none that are forgotten."""
    dated = clicks.where(valid()).withColumn("date", day_column(card, F.col("event_time")))
    once = remember(_once(dated, "date"), known(lake))
    by_date = spread(once, card).sortWithinPartitions("date", "event_time", "event_id")
    with write_table(lake / f"landing={landing}") as folder:
        write_counted(by_date, folder)


def spread(rows: DataFrame, card: DatasetCard) -> DataFrame:
    """Rows by parts of a day, which Spark puts together where they are small: no task holds a whole day of a large log,
    and a day of a small one is one file."""
    return rows.repartition(F.floor(F.col("event_time") / F.lit(max(1, card.day_ms // PARTS_A_DAY))))


def write_counted(rows: DataFrame, folder: Place) -> int:
    """Write rows by their ``date``, and read back how many there are; returns that.

    Raises:
        LakeError: it is another number than Spark has written.
    """
    counted = Observation()
    counted_rows = rows.observe(counted, F.count(F.lit(1)).alias("rows"))
    counted_rows.write.partitionBy("date").parquet(str(folder))
    found = sum(parquet_metadata(file).num_rows for file in folder.glob("date=*/*.parquet"))
    if found != counted.get["rows"]:
        raise LakeError(
            f"Spark wrote {counted.get['rows']:,} clicks and {found:,} are in {folder.parent}, so nothing was landed: "
            "its executors need the home folder at the same path"
        )
    return found


def compact(spark: SparkSession, card: DatasetCard, lake: Place) -> int:
    """Make one sorted landing of every date that several share; returns how many dates that were.

    The new landing has a name of its own and appears whole; only then are the date's older ones deleted. A crash in
    between leaves events that landed twice, which readers drop and the next compaction removes.
    """
    landed = landings(lake)
    topic = {date: [one for one in parts if not one.of_log] for date, parts in kept(lake).items()}
    crowded = {date: parts for date, parts in topic.items() if len(parts) > 1}
    last = max((int(found[1]) for one in landed if (found := re.fullmatch(_COMPACTED, one.name))), default=0)
    for number, (day, parts) in enumerate(sorted(crowded.items()), last + 1):
        once = remember(_once(_read(spark, lake, parts)), known(lake))
        with write_table(lake / f"landing=compacted-{number:06d}") as folder:
            by_time = spread(once, card).sortWithinPartitions("event_time", "event_id")
            by_time.write.parquet(str(folder / f"date={day}"))
        for one in parts:
            delete_table(one.folder)
            landed.remove(one)
            if not any(other.name == one.name for other in landed):
                delete_table(lake / one.name)
    return len(crowded)


_COMPACTED = r"landing=compacted-(\d+)"


class Landing(NamedTuple):
    """What a landing holds of a date."""

    date: str
    name: str
    """Of the landing's table: ``landing=log-000001``."""
    folder: Place
    files: tuple[Place, ...]

    @property
    def of_log(self) -> bool:
        return self.name.startswith("landing=log-")


def landings(lake: Place) -> list[Landing]:
    """All that there is of landings, in order of their names and dates."""
    found: dict[tuple[str, str], list[Place]] = {}
    for file in files_of_tables(lake, "landing=*/date=*/*.parquet"):
        landing = table_of(file.parent.parent).name
        found.setdefault((landing, file.parent.name.removeprefix("date=")), []).append(file)
    return [Landing(day, name, files[0].parent, tuple(files)) for (name, day), files in sorted(found.items())]


def kept(lake: Place) -> dict[str, list[Landing]]:
    """The landings of each date that the lake keeps."""
    found: dict[str, list[Landing]] = {}
    last = retired(lake)
    for one in landings(lake):
        if one.date > last:
            found.setdefault(one.date, []).append(one)
    return found


def retired(lake: Place) -> str:
    """The last date whose clicks :func:`retire` has deleted; empty: none was."""
    mark = lake / _RETIRED
    return mark.read_text() if mark.is_file() else ""


def retire(lake: Place, card: DatasetCard, moment_ms: int) -> list[str]:
    """Delete the clicks of all dates that end before a moment; returns the dates. Clicks that come later for such a
    date are not kept either."""
    last = (day_of(card, moment_ms) - timedelta(milliseconds=card.day_ms)).isoformat()
    old = [day for day in kept(lake) if day <= last]
    if old:
        write_text(lake / _RETIRED, last)
    last = retired(lake)
    for one in landings(lake):
        if one.date <= last:
            delete_table(one.folder)
    return old


_RETIRED = "retired"


def dates(lake: Place) -> list[str]:
    """The dates that have clicks, ``YYYY-MM-DD``, in order."""
    return sorted(kept(lake))


def files_of(lake: Place, since: str = "") -> list[Place]:
    """The files of the dates from one on, in order of landing and date."""
    parts = [one for day, parts in kept(lake).items() if day >= since for one in parts]
    return [file for one in sorted(parts, key=lambda one: (one.name, one.date)) for file in one.files]


def day_counts(lake: Place, newest: int) -> list[DayCount]:
    """The newest dates that have clicks, in order, with how many and the last one's time."""
    counts: dict[str, tuple[int, int]] = {}
    for file in files_of(lake, (["", *dates(lake)])[-newest:][0]):
        count, last = counts.get(file.parent.name, (0, 0))
        metadata = parquet_metadata(file)
        counts[file.parent.name] = count + metadata.num_rows, max(last, _last(file, metadata))
    days = sorted((name.removeprefix("date="), *found) for name, found in counts.items() if found[0])
    return [(date.fromisoformat(day), count, last) for day, count, last in days]


def _last(file: Place, metadata: FileMetaData) -> int:
    """The time of a file's last click, which its end tells."""
    at = metadata.schema.names.index("event_time")
    ends = [metadata.row_group(number).column(at).statistics for number in range(metadata.num_row_groups)]
    if all(found is not None and found.has_min_max for found in ends):
        return max((found.max for found in ends), default=0)
    times = read_parquet(file, ["event_time"])["event_time"]
    return pc.max(times).as_py() or 0


def fingerprints(lake: Place) -> dict[str, str]:
    """What the files of each date are, by name and size: a file's name is its own, and files do not change. An object
    may, at another time: :func:`spark_jobs.forgotten.replace`."""
    found: dict[str, list] = {}
    for file in files_of(lake):
        time = (file.stat().st_mtime_ns,) if isinstance(file, UrlPath) else ()
        found.setdefault(file.parent.name.removeprefix("date="), []).append((file.name, file.stat().st_size, *time))
    return {date: hashlib.sha256(repr(files).encode()).hexdigest()[:16] for date, files in found.items()}


def before(card: DatasetCard, dates: dict[str, str], moment_ms: int) -> dict[str, str]:
    """Those of some dates that begin before a moment."""
    return {day: of for day, of in dates.items() if begins(card, datetime.fromisoformat(day)) < moment_ms}


def read_rows(spark: SparkSession, lake: Place) -> DataFrame | None:
    """All rows of all landings, events that landed twice included; None if nothing has landed."""
    parts = [one for parts in kept(lake).values() for one in parts]
    return _read(spark, lake, parts) if parts else None


def _read(spark: SparkSession, lake: Place, parts: list[Landing]) -> DataFrame:
    """Rows with their ``date``, by which Spark passes over folders without a look at their files."""
    # The schema is given: Spark would take it from any one file, and read a column that others lack as null.
    rows = spark.read.schema(_SCHEMA).option("basePath", str(lake)).parquet(*(str(one.folder) for one in parts))
    return rows.select(*COLUMNS, "date")


_SCHEMA = (
    "event_id string, query_id string, item_id string, event_time long, partition int, offset long, event_type string, "
    "value double, position long, landing string, date string"
)


def weight(rule: EventRule) -> Column:
    """What a click weighs by its type, as :func:`model.event_weights.weights_of` says it."""
    kind, weights = F.col("event_type"), F.lit(1.0)
    for name, weighs in rule.events.items():
        weights = F.when(kind == name, F.lit(weighs)).otherwise(weights)
    return weights.cast("float")


def fold_order(card: DatasetCard) -> list[Column]:
    """The columns that order clicks: time; within a moment their place in the log, if the card trusts it; event id."""
    return [F.col(name) for name in ("event_time", *card.clicks.tie, "event_id")]


def between(card: DatasetCard, start_ms: int, end_ms: int) -> Column:
    """Which rows of :func:`read_lake` are of a span of time, its end exclusive; files of other dates are not opened."""
    first, last = day_of(card, start_ms).isoformat(), day_of(card, end_ms - 1).isoformat()
    return F.col("date").between(first, last) & F.col("event_time").between(start_ms, end_ms - 1)


def check_files(files: Iterable[Place]) -> int:
    """Look at the end of some files, which Parquet writes last; returns how many clicks they say they have.

    Raises:
        LakeError: a file is cut off or is not Parquet, or lacks a column.
    """
    clicks = 0
    for file in files:
        try:
            metadata = parquet_metadata(file)
        except (pa.ArrowInvalid, OSError) as error:
            raise LakeError(
                f"{file} is damaged ({str(error).splitlines()[0]}); delete it and land its clicks again"
            ) from None
        have = metadata.schema.names
        missing = [name for name in ALWAYS if name not in have]
        if missing:
            raise LakeError(f"{file} lacks the column {', '.join(missing)}; it has: {', '.join(have)}")
        clicks += metadata.num_rows
    return clicks


def read_lake(spark: SparkSession, card: DatasetCard, lake: Place, signals: bool = False, since: str = "") -> DataFrame:
    """All clicks, each event once, whatever landed it: columns ``COLUMNS``, ``date``, and ``weight``, what
    each counts as.

    Only dates that landings of Kafka share with others are searched for events that landed twice.

    Args:
        signals: With the events that are a signal against their item.
        since: The first date whose files are looked at before they are read: those before it were, when they were new.

    Raises:
        CardError: nothing has landed. LakeError: a file is damaged.
    """
    found = kept(lake)
    if not found:
        raise CardError(
            f"the click lake {lake} is empty: nothing has landed, or no row of the log was kept; `dat data check CARD` "
            "tells what is in a log, and `dat nightly --data CARD` lands it"
        )
    # A task holds its keys' clicks in memory, so there must be more tasks where there are more clicks.
    clicks_since = check_files(files_of(lake, since))
    if not spark.sparkContext.getConf().contains("spark.sql.shuffle.partitions"):
        partitions = max(spark.sparkContext.defaultParallelism, clicks_since // 500_000)
        spark.conf.set("spark.sql.shuffle.partitions", partitions)
    once = {date for date, parts in found.items() if len(parts) == 1 or all(one.of_log for one in parts)}
    alone = [one for date, parts in found.items() if date in once for one in parts]
    shared = [one for date, parts in found.items() if date not in once for one in parts]
    parts = [_read(spark, lake, alone)] if alone else []
    if shared:
        parts.append(_once(_read(spark, lake, shared), "date"))
    clicks = parts[0].unionByName(parts[1]) if len(parts) == 2 else parts[0]
    return clicks.where(counted(card.clicks.rule, signals)).withColumn("weight", weight(card.clicks.rule))


def counted(rule: EventRule, signals: bool = False) -> Column:
    """Which events are clicks; the topic brings whatever its producers call an event."""
    kind, value = F.col("event_type"), F.col("value")
    column = F.lit(True)
    if rule.events:
        column &= kind.isNull() | kind.isin(rule.clicks)
    if rule.at_least is not None:
        column &= value.isNull() | (value >= rule.at_least)
    if signals and rule.against:
        column |= F.coalesce(kind.isin(rule.against), F.lit(False))
    return column
