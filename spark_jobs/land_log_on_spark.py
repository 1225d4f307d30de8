"""The reading of a log on a cluster: Spark hands out the files, and DuckDB reads each as it does on one machine.

What is done for a file (:func:`feature_repo.reader.clicks.stage`) is the same code on both ways; what spans files, the
counts and the rows that several files have, is an aggregate here. A table that Spark knows (``table:NAME``) comes in
Arrow batches, a query's rows together, and goes through the same SQL.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa
from pyspark import TaskContext
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_schema

from feature_repo.card import CardError, DatasetCard
from feature_repo.place import Place
from feature_repo.reader.clicks import ROWS_A_FILE, Staged, stage, stage_batches
from feature_repo.reader.faults import refuse
from feature_repo.reader.files import TABLE
from feature_repo.reader.profile import EXAMPLES, Facts, facts_of
from model.forgetting import Listed
from spark_jobs.day_column import day_column
from spark_jobs.forgotten import remember
from spark_jobs.lake import COLUMNS, Landing, spread, write_counted

SCHEMA = pa.schema(
    [
        ("event_id", pa.string()), ("query_id", pa.string()), ("item_id", pa.string()), ("event_time", pa.int64()),
        ("event_type", pa.string()), ("value", pa.float64()), ("position", pa.int64()), ("facts", pa.string()),
        ("refused", pa.string()),
    ]
)  # fmt: skip
"""A row that was kept; or, alone in its row, the facts of a file as JSON, or why the file is refused."""


def read_log(
    spark: SparkSession, card: DatasetCard, folder: Path, files: dict[Path, int], scratch: Place
) -> tuple[DataFrame, Facts]:
    """The rows of some files that are kept, each event once, and the facts of the reading.

    Args:
        files: What to read, with the place of each in the log; the workers see them at the same paths.
        scratch: A folder for what the workers have read, which the rows are then read from.

    Raises:
        CardError: as :func:`feature_repo.reader.clicks.refuse`.
    """
    names = [path.removeprefix(TABLE) for path in card.clicks.paths if path.startswith(TABLE)]
    parts = [_of_table(spark, card, name, len(files) + n) for n, name in enumerate(names)]
    parts += [_of_files(spark, card, folder, files)] if files else []
    for number, part in enumerate(parts):
        part.write.mode("append" if number else "overwrite").parquet(str(scratch))
    read = spark.read.parquet(str(scratch))
    if refused := read.where("refused IS NOT NULL").orderBy("position").first():
        raise CardError(refused["refused"])
    of_files = [Facts.model_validate_json(row["facts"]) for row in read.where("facts IS NOT NULL").collect()]
    rows = read.where("facts IS NULL").drop("facts", "refused")
    place = F.struct("position")
    once = rows.groupBy("event_id").agg(F.min_by(F.struct(*rows.columns[1:]), place).alias("click"))
    once = once.select("event_id", "click.*")
    facts = _together(of_files, once, card)
    refuse(card, facts)
    return once, facts


def _of_files(spark: SparkSession, card: DatasetCard, folder: Path, files: dict[Path, int]) -> DataFrame:
    def run(batches: Iterable[pa.RecordBatch]) -> Iterable[pa.RecordBatch]:
        for batch in batches:
            for path, number in zip(batch["path"].to_pylist(), batch["number"].to_pylist(), strict=True):
                try:
                    with stage(card, folder, {Path(path): number}, whole=False) as staged:
                        yield from _rows(staged)
                except CardError as error:
                    yield _alone(position=number, refused=str(error))

    listed = spark.createDataFrame([(str(path), number) for path, number in files.items()], "path string, number long")
    return listed.repartition(len(files)).mapInArrow(run, from_arrow_schema(SCHEMA))


def _of_table(spark: SparkSession, card: DatasetCard, name: str, number: int) -> DataFrame:
    def run(batches: Iterable[pa.RecordBatch]) -> Iterable[pa.RecordBatch]:
        part = TaskContext.get()
        with stage_batches(card, batches, (number << 16) + (part.partitionId() if part else 0)) as staged:
            yield from _rows(staged)

    return spark.read.table(name).repartition(f"`{card.clicks.query}`").mapInArrow(run, from_arrow_schema(SCHEMA))


def _rows(staged: Staged) -> Iterator[pa.RecordBatch]:
    kept = (
        f"SELECT {', '.join(SCHEMA.names[:-2])}, NULL::VARCHAR AS facts, NULL::VARCHAR AS refused FROM ({staged.kept})"
    )
    yield from (batch.cast(SCHEMA) for batch in staged.sql.execute(kept).to_arrow_reader(65_536))
    yield _alone(facts=facts_of(staged).model_dump_json())


def _alone(**values: str | int) -> pa.RecordBatch:
    return pa.RecordBatch.from_pydict({name: [values.get(name)] for name in SCHEMA.names}, SCHEMA)


def _together(files: list[Facts], once: DataFrame, card: DatasetCard) -> Facts:
    """The facts of the log from those of its files, and from the rows that are left of all of them."""
    (total,) = once.agg(
        F.count("*"), F.countDistinct("query_id"), F.countDistinct("item_id"), F.min("event_time"), F.max("event_time")
    ).collect()
    by_reason: Counter[int] = Counter()
    for facts in files:
        by_reason.update(facts.by_reason)
    calendar = card.model_copy(update={"day": "1d"})
    dated = once.groupBy(day_column(calendar, F.col("event_time")).alias("day"))
    days = [] if card.clicks.timeless else dated.agg(F.count("*"), F.max("event_time")).orderBy("day").collect()
    types = once.where("event_type IS NOT NULL").groupBy("event_type").count().orderBy("event_type").collect()
    names = dict.fromkeys(name for facts in files for name in facts.odd)
    return Facts(
        files=len(files),
        by_reason=dict(by_reason),
        wrong=[time for facts in files for time in facts.wrong],
        keyless=next((facts.keyless for facts in files if facts.keyless), None),
        ragged=next((facts.ragged for facts in files if facts.ragged), None),
        merged=by_reason[0] - total[0],
        queries=total[1],
        items=total[2],
        first=total[3],
        last=total[4],
        days={day: (count, last) for day, count, last in days},
        types=dict(types),
        values_unreadable=sum(facts.values_unreadable for facts in files),
        odd={name: tuple(map(any, zip(*(facts.odd[name] for facts in files), strict=True))) for name in names},
        examples=[example for facts in files for example in facts.examples][:EXAMPLES],
        notes=[note for facts in files for note in facts.notes],
    )


def missing(rows: DataFrame, kept: list[Landing], numbers: list[int]) -> dict[int, int]:
    """By a file's number how many rows the lake has of it that are not among some rows."""
    there = [str(one.folder) for one in kept if one.of_log]
    if not there:
        return {}
    landed = rows.sparkSession.read.schema("event_id string, position long").parquet(*there)
    file = F.shiftright("position", ROWS_A_FILE.bit_length() - 1).alias("file")
    lost = landed.where(file.isin(numbers)).join(rows, "event_id", "anti").groupBy(file).count()
    return {row["file"]: row["count"] for row in lost.collect()}


def write(rows: DataFrame, card: DatasetCard, kept: list[Landing], gone: Listed, target: Place) -> int:
    """Write the rows that the lake does not have, and that are not forgotten, by date; returns how many."""
    spark, none = rows.sparkSession, F.lit(None)
    dated = rows.withColumn("date", day_column(card, F.col("event_time")))
    dates = [row["date"] for row in dated.select("date").distinct().collect()]
    there = [str(one.folder) for one in kept if one.date in dates]
    if there:
        dated = dated.join(spark.read.schema("event_id string").parquet(*there), "event_id", "anti")
    full = dated.withColumns({"partition": none.cast("int"), "offset": none.cast("long")}).select(*COLUMNS, "date")
    by_date = spread(remember(full, gone), card).sortWithinPartitions("date", "event_time", "position")
    return write_counted(by_date, target)
