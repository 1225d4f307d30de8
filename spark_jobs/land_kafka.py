"""From the click topic into the lake: each record once, and where the states of the nights end.

**The contract of the cut.** A position is a place in a partition of the click topic, as the lake counts them: Kafka's
offset, or more where the topic was deleted and made anew. Every row keeps its ``partition`` and position (``offset``).

- A landing reads a range of positions and records, in one step with the range, for every date of which it is the first
  landing to hold a click, the vector of positions at which it ends. Dates beyond the wall clock get none.
- The cut of a date is the earliest vector of that date or a later one; a date beyond all landed ones gets today's end,
  recorded. So a re-run or a backfill of a date has the cut that it had.
- :func:`in_state` chooses the rows that a bundle of that date has in its state: rows of log files, and rows below the
  cut *whatever their event time*. :func:`offsets_at` says where the updater begins: exactly there.

A click is thus in the state or in the stream, never in both and never in neither, however late, skewed or out of order
it is; of an event that was written several times the earliest record counts, as in the stream.
"""

import hashlib
import logging
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime
from operator import attrgetter

import pandas as pd
import pyarrow as pa
from filelock import Timeout
from kafka import KafkaConsumer, TopicPartition
from kafka.admin import KafkaAdminClient
from pydantic import BaseModel
from pyspark.errors import PySparkException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_schema

from feature_repo.card import DatasetCard
from feature_repo.place import Place
from feature_repo.table import write_text
from model.click import Click, ClickValidator, Record
from model.settings.updater import UpdaterConfig
from spark_jobs.forgotten import learn, lock_in, read_topic
from spark_jobs.lake import LakeError, compact, land, landings, read_rows

log = logging.getLogger(__name__)
Vector = dict[int, int]
"""Partition → position, or offset."""


class Gap(BaseModel):
    """Records that Kafka had deleted before they were landed: positions from ``start`` to ``end`` (exclusive)."""

    partition: int
    start: int
    end: int


class Ledger(BaseModel):
    """How far the lake has landed the topic; one file beside the landings, replaced as a whole.

    topic_id: Kafka's id of the topic, another one when it is made anew · first: the positions of the offsets 0 of the
    topic as it is now · next: the positions to land next · cuts: for each date the end of its first landing.
    """

    topic_id: str
    first: Vector = {}
    next: Vector = {}
    cuts: dict[str, Vector] = {}
    gaps: list[Gap] = []

    @classmethod
    def load(cls, lake: Place) -> "Ledger | None":
        file = lake / _LEDGER
        return cls.model_validate_json(file.read_text()) if file.is_file() else None

    def save(self, lake: Place) -> None:
        write_text(lake / _LEDGER, self.model_dump_json(indent=2))

    def cut(self, day: str) -> Vector | None:
        """The cut of a date; None: nothing of it or after it has landed."""
        later = [vector for name, vector in self.cuts.items() if name >= day]
        return min(later, key=lambda vector: sum(vector.values()), default=None)


_LEDGER = "kafka.json"


def offsets_at(lake: Place, day: date) -> Vector:
    """Where the updater begins for a bundle of a date: for each partition of the topic as it is now, an offset.

    Nothing if the lake has never landed a topic. See the contract above.
    """
    ledger = Ledger.load(lake)
    if ledger is None:
        return {}
    return {p: max(0, at - ledger.first.get(p, 0)) for p, at in _cut(ledger, lake, day).items()}


def is_whole(lake: Place, day: date) -> bool:
    """Whether the state of a bundle of a date holds all that has landed, as :func:`in_state` would find."""
    ledger = Ledger.load(lake)
    return ledger is None or _cut(ledger, lake, day) == ledger.next


def in_state(lake: Place, day: date) -> Column:
    """Which rows of the lake belong to the state of a bundle of a date. See the contract above."""
    ledger = Ledger.load(lake)
    state = F.col("partition").isNull()
    for partition, position in (_cut(ledger, lake, day) if ledger else {}).items():
        state |= (F.col("partition") == partition) & (F.col("offset") < position)
    return state


def _cut(ledger: Ledger, lake: Place, day: date) -> Vector:
    vector = ledger.cut(day.isoformat())
    if vector is None:
        vector = ledger.cuts[day.isoformat()] = dict(ledger.next)
        ledger.save(lake)
    return vector


def land_new(
    spark: SparkSession, card: DatasetCard, home: Place, config: UpdaterConfig, every: str | None = None,
    at_most: int = 2_000_000,
) -> bool:  # fmt: skip
    """:func:`land_kafka` into a home's lake, then :func:`spark_jobs.lake.compact`; one process at a time.

    Args:
        every: Stay, and land what is new this often (``1 minute``); None: land what there is, and return.

    Returns:
        Whether it was ours to do: False where another process lands the topic already (``dat lake --follow``).
    """
    lake = home / "lake" / "clicks"
    lake.mkdir(parents=True, exist_ok=True)
    try:
        with lock_in(home / "lake", "lock").acquire(timeout=0):
            land_kafka(spark, card, config, lake, at_most)
            while every is not None:
                time.sleep(pd.Timedelta(every).total_seconds())
                land_kafka(spark, card, config, lake, at_most)
            compact(spark, card, lake)
    except Timeout:
        return False
    return True


def land_kafka(
    spark: SparkSession, card: DatasetCard, config: UpdaterConfig, lake: Place, at_most: int = 2_000_000
) -> None:
    """Land what has arrived on the click topic since the last time.

    A landing is named after the positions where it begins, and the ledger is replaced after it: a crash in between
    makes the next run write the same landing again. Without a ledger the rows of the lake say how far it is.

    Args:
        at_most: Records in one landing, which bounds the memory that a backlog takes.

    Raises:
        LakeError: Kafka cannot be read.
    """
    topic = config.topics.clicks
    while True:
        extent = _extent(config, topic)
        ledger = Ledger.load(lake) or _recovered(spark, lake, extent)
        ledger = _reconciled(ledger, extent)
        learn(lake, read_topic(config), ledger.first)  # after the extent: see there
        share = max(1, at_most // max(1, len(extent.ends)))
        start = {p: ledger.next[p] - ledger.first[p] for p in extent.ends}
        stop = {p: min(end, start[p] + share) for p, end in extent.ends.items()}
        if start != stop:
            validate = ClickValidator(len(extent.ends), config.clock_skew_ms, config.partitioner)
            clicks = _clicks(_records(spark, config, topic, start, stop), validate, ledger.first)
            name = _name(ledger.next)
            try:
                land(clicks, card, lake, name)
            except PySparkException as error:
                where = f"the topic {topic} at {config.bootstrap}"
                raise LakeError(f"{where} could not be landed: {str(error).splitlines()[0]}") from error
            ledger.next = {p: ledger.first[p] + offset for p, offset in stop.items()}
            today = datetime.now(UTC).date().isoformat()
            for one in landings(lake):
                if one.name == f"landing={name}" and one.date <= today:
                    ledger.cuts.setdefault(one.date, dict(ledger.next))
        ledger.save(lake)
        if stop == extent.ends:
            return


class _Extent(BaseModel):
    """The topic as Kafka has it: its id, its oldest offsets and the end of its committed records."""

    topic_id: str
    begins: Vector
    ends: Vector


def _extent(config: UpdaterConfig, topic: str) -> _Extent:
    admin = KafkaAdminClient(**config.client)
    try:
        described = admin.describe_topics([topic])[0]
    finally:
        admin.close()
    partitions = [TopicPartition(topic, p["partition_index"]) for p in described["partitions"]]
    if not partitions:
        raise LakeError(f"there is no topic {topic} at {config.bootstrap}; create it, or give another --bootstrap")
    consumer = KafkaConsumer(**config.client, isolation_level="read_committed", enable_auto_commit=False)
    try:
        begins, ends = consumer.beginning_offsets(partitions), consumer.end_offsets(partitions)
    finally:
        consumer.close()
    return _Extent(
        topic_id=str(described["topic_id"]),
        begins={p.partition: offset for p, offset in begins.items()},
        ends={p.partition: offset for p, offset in ends.items()},
    )


def _recovered(spark: SparkSession, lake: Place, extent: _Extent) -> Ledger:
    """The ledger of a lake that has lost it, or has none yet: it goes on behind the rows that it has."""
    ledger = Ledger(topic_id=extent.topic_id)
    rows = read_rows(spark, lake)
    if rows is not None:
        last = rows.where(F.col("partition").isNotNull()).groupBy("partition").agg(F.max("offset"))
        ledger.next = {partition: offset + 1 for partition, offset in last.collect()}
        days = {one.date for one in landings(lake)} if ledger.next else ()
        ledger.cuts = {day: dict(ledger.next) for day in days}
    return ledger


def _reconciled(ledger: Ledger, extent: _Extent) -> Ledger:
    """The ledger after what happened to the topic meanwhile: made anew, deleted from below, or with more partitions."""
    ledger = ledger.model_copy(deep=True)
    behind = any(ledger.next.get(p, 0) - ledger.first.get(p, 0) > end for p, end in extent.ends.items())
    if ledger.topic_id != extent.topic_id or behind:  # made anew, or restored from an older copy
        ledger.topic_id, ledger.first = extent.topic_id, dict(ledger.next)
    for partition, begin in sorted(extent.begins.items()):
        first = ledger.first.setdefault(partition, 0)
        at = ledger.next.setdefault(partition, first)
        if at < first + begin:
            if ledger.cuts:  # else they were deleted before there was a lake
                gap = Gap(partition=partition, start=at, end=first + begin)
                ledger.gaps.append(gap)
                log.warning("records_lost %s: Kafka had deleted them before they were landed; land more often", gap)
            ledger.next[partition] = first + begin
    return ledger


def _name(start: Vector) -> str:
    digest = hashlib.sha256(repr(sorted(start.items())).encode()).hexdigest()[:8]
    return f"kafka-{sum(start.values()):015d}-{digest}"


def _records(spark: SparkSession, config: UpdaterConfig, topic: str, start: Vector, stop: Vector) -> DataFrame:
    def json(vector: Vector) -> str:
        inner = ",".join(f'"{partition}":{offset}' for partition, offset in vector.items())
        return f'{{"{topic}":{{{inner}}}}}'

    options = {"subscribe": topic, "startingOffsets": json(start), "endingOffsets": json(stop)}
    options |= {"kafka.isolation.level": "read_committed", **config.spark_options}
    return spark.read.format("kafka").options(**options).load()


def _clicks(records: DataFrame, validate: ClickValidator, first: Vector) -> DataFrame:
    """The clicks among some records, by the stream's own verdict, with their positions."""

    def rows(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            columns = [batch[name].to_pylist() for name in ("key", "value", "partition", "timestamp")]
            verdicts = validate(map(Record, *columns))
            clicks = [
                (*attrgetter(*own)(click), partition, first[partition] + offset)
                for click, partition, offset in zip(verdicts, columns[2], batch["offset"].to_pylist(), strict=True)
                if isinstance(click, Click)
            ]
            values = zip(*clicks, strict=True) if clicks else [()] * len(schema)
            yield pa.record_batch([pa.array(v, f.type) for v, f in zip(values, schema, strict=True)], schema)

    own = {
        **dict.fromkeys(("event_id", "query_id", "item_id", "event_type"), pa.string()),
        "event_time": pa.int64(), "value": pa.float64(),
    }  # fmt: skip
    schema = pa.schema({**own, "partition": pa.int32(), "offset": pa.int64()})
    stamped = records.select("key", "value", "partition", "offset", F.unix_millis("timestamp").alias("timestamp"))
    clicks = stamped.mapInArrow(rows, from_arrow_schema(schema))
    return clicks.withColumn("position", F.lit(None).cast("long"))  # rows of one time are in order of their offsets
