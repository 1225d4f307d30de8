"""The training set of a night, written by Spark: ten days of clicks as integers with their negatives.

``training_sets/<date>/`` holds the tables of :mod:`training.training_set` (``clicks``, ``queries``, ``items``), and

``later/``      clicks after the window that belong to the bundle's state, since the stream will not deliver them
``test/``       the clicks of the day after the window, or the last ones that were left out of it
``card.json``   the data card, which says that the set is finished

The choices are those of :mod:`training.build`, which makes the same tables in memory; a test holds the two together.
No job collects the log: a driver sees counts, and of the items from when each exists.
"""

import hashlib
import io
import json
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from feature_repo.card import DatasetCard, Side
from feature_repo.place import Place, open_parquet
from feature_repo.table import delete_table, download_files, whole, write_table, write_text
from model.windows import Window
from spark_jobs.activity_snapshot import Activity
from spark_jobs.lake import fold_order
from training.build import draw, list_column
from training.training_set import PROFILE

PARTS = ("clicks", "queries", "items", "later", "test")
CLICK = ("event_id", "query_id", "item_id", "event_time", "event_type", "position")
FILE_CLICKS = 1_000_000
ROW_GROUP = 8 << 20  # bytes
BUCKETS = 1_440  # parts of a day by which clicks are spread over files


def items_of(clicks: DataFrame, activity: DataFrame, catalogue: DataFrame, card: DatasetCard, cut_ms: int) -> DataFrame:
    """The items that a model of this cut knows, ``item_id, since``: see :func:`training.build.existing_from`.

    Args:
        clicks: Those of the window. activity: The items' state before it.
    """
    created = F.col(f"`{card.item.created}`") if card.item.created else F.lit(None).cast("long")
    listed = catalogue.select("item_id", created.alias("created"))
    first = clicks.groupBy("item_id").agg(F.min("event_time").alias("first"))
    first = first.unionByName(activity.select("item_id", F.col("first")))
    first = first.groupBy("item_id").agg(F.min("first").alias("first"))
    since = F.least("created", "first").alias("since")
    return listed.join(first, "item_id", "full").select("item_id", since).where(F.col("since") < cut_ms)


def numbered(rows: DataFrame, order: list[str]) -> DataFrame:
    """Rows with ``row``, their number in the given order of columns; no task holds all of them."""
    ordered = rows.orderBy(*order).withColumn("n", F.monotonically_increasing_id()).persist()
    part = F.shiftright("n", 33)
    sizes = {r["part"]: r["count"] for r in ordered.groupBy(part.alias("part")).count().collect()}
    starts, total = [], 0
    for number in sorted(sizes):
        starts.append((number, total))
        total += sizes[number]
    spark = rows.sparkSession
    table = spark.createDataFrame(starts or [(0, 0)], "part long, start long")
    inside = F.col("n").bitwiseAND(F.lit((1 << 33) - 1))
    return (
        ordered.withColumn("part", part)
        .join(F.broadcast(table), "part")
        .withColumn("row", (F.col("start") + inside).cast("int"))
        .drop("n", "part", "start")
    )


def write(
    window: DataFrame, later: DataFrame, test: DataFrame, activity: Activity, catalogues: dict[str, DataFrame],
    card: DatasetCard, span: Window, negatives: int, seed: int, folder: Place,
) -> None:  # fmt: skip
    """Write the tables, in place of earlier ones; the data card comes later.

    Args:
        window: The clicks to train on. later: Those after them that belong to the state. test: Those to predict.
        activity: Both sides' activity before the window.
    """
    (folder / "card.json").unlink(missing_ok=True)
    items = numbered(
        items_of(window, activity.item, catalogues["item"], card, span.cut), ["since", "item_id"]
    ).persist()
    queries = window.select("query_id").union(activity.query.select("query_id")).distinct()
    queries = numbered(queries, ["query_id"]).persist()
    item_rows = items.select("item_id", F.col("row").alias("item"))
    query_rows = queries.select("query_id", F.col("row").alias("query"))
    since = np.sort(items.select("since").toArrow()["since"].to_numpy())
    clicks = window.join(item_rows, "item_id").join(query_rows, "query_id")
    recent = activity.recent.select("query_id", F.posexplode("history").alias("place", "item_id")).join(
        item_rows, "item_id"
    )
    recent = recent.groupBy("query_id").agg(
        F.sort_array(F.collect_list(F.struct("place", "item"))).getField("item").alias("recent_items")
    )
    nothing = F.array().cast("array<int>")
    tables = {
        "clicks": None,
        "queries": _side(queries, activity.query, catalogues["query"], card.query, "query_id")
        .join(recent, F.col("id") == F.col("query_id"), "left")
        .withColumn("recent_items", F.coalesce("recent_items", nothing))
        .drop("query_id"),
        "items": _side(items, activity.item, catalogues["item"], card.item, "item_id"),
        "later": later.select(*CLICK),
        "test": test.select(*CLICK),
    }
    with_negatives(clicks, card, since, negatives, seed, span, folder / "clicks")
    for name, rows in tables.items():
        if rows is not None:
            order = ["row"] if "row" in rows.columns else fold_order(card)
            ordered = rows.orderBy(*order).drop("row")
            with write_table(folder / name) as staging:
                ordered.write.parquet(str(staging))
    items.unpersist()
    queries.unpersist()


def _side(rows: DataFrame, activity: DataFrame, catalogue: DataFrame, side: Side, key: str) -> DataFrame:
    """A side's table: id, profile, activity as of the window's start, in the order of ``row``."""
    profile = catalogue.select(key, *[F.col(f"`{name}`").alias(PROFILE + name) for name in side.features])
    none = F.array(*[F.lit(0.0)] * len(side.half_lives_ms))
    state = activity.select(key, "clicks", "counters", "last_click")
    joined = rows.join(profile, key, "left").join(state, key, "left")
    long, extra = F.lit(0).cast("long"), ["since"] if "since" in rows.columns else []
    return joined.select(
        "row", F.col(key).alias("id"), *[f"`{PROFILE}{name}`" for name in side.features],
        F.coalesce("clicks", long).alias("clicks"),
        F.coalesce("counters", none).cast("array<float>").alias("counters"),
        F.coalesce("last_click", long).alias("last_click"), *extra,
    )  # fmt: skip


def with_negatives(
    clicks: DataFrame, card: DatasetCard, since: np.ndarray, negatives: int, seed: int, span: Window, folder: Place
) -> None:
    """Write the clicks with their negatives, in the order of the fold over files in the order of their names.

    A file holds whole parts of a day, about :data:`FILE_CLICKS` clicks: no task sorts more than a few of them, unless
    one part has more. Row groups are small, since who trains reads one after the other.
    """
    length = max(1, card.day_ms // BUCKETS)
    bucket = F.floor(F.col("event_time") / F.lit(length))
    sizes = clicks.groupBy(bucket.alias("bucket")).count().orderBy("bucket").collect()
    files, number, filled = [], 0, 0
    for row in sizes:
        if filled and filled + row["count"] > FILE_CLICKS:
            number, filled = number + 1, 0
        files.append((row["bucket"], number))
        filled += row["count"]
    spark = clicks.sparkSession
    table = spark.createDataFrame([(b, f"{n:06d}") for b, n in files], "bucket long, file string")
    placed = clicks.withColumn("bucket", bucket).join(F.broadcast(table), "bucket")
    weight = ("weight",) if card.clicks.events else ()
    hashed = placed.select(
        "file", "query", "item", *weight, *fold_order(card), F.crc32(F.col("event_id").cast("binary")).alias("hash")
    )
    by_file = hashed.repartition(max(1, number + 1), "file")
    ordered = by_file.sortWithinPartitions("file", *fold_order(card))
    exists = spark.sparkContext.broadcast(since)
    plain = ("file", "query", "item", "event_time", *weight)

    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            times = batch["event_time"].to_numpy()
            hashes = batch["hash"].to_numpy().astype(np.uint64)
            drawn = draw(hashes, times, exists.value, negatives, seed)
            yield pa.record_batch(
                [*(batch[name] for name in plain), list_column(drawn)],
                names=[*plain, "negatives"],
            )

    weighed = "weight float, " if weight else ""
    schema = f"file string, query int, item int, event_time long, {weighed}negatives array<int>"
    rows = ordered.mapInArrow(run, schema)
    with write_table(folder) as staging:
        rows.write.option("parquet.block.size", ROW_GROUP).partitionBy("file").parquet(str(staging))
    exists.destroy()


def write_card(folder: Place, card: dict) -> None:
    """Write the data card, which says that the set is finished."""
    write_text(folder / "card.json", json.dumps(card, indent=2))


def last_card(folder: Place) -> dict | None:
    """The data card of the newest earlier set beside this one."""
    earlier = sorted(path for path in folder.parent.glob("*/card.json") if path.parent.name < folder.name)
    return json.loads(earlier[-1].read_text()) if earlier else None


def data_card(folder: Place) -> dict | None:
    """The data card of a finished training set, of which no more may have been kept; None if it is not finished."""
    path = folder / "card.json"
    return json.loads(path.read_text()) if path.is_file() else None


def has_rows(folder: Place) -> bool:
    """Whether the rows of a finished set are still kept."""
    return whole(folder / "clicks").is_dir()


def on_disk(folder: Place, scratch: Path) -> Path:
    """A set's rows where the trainer reads them: epoch after epoch, so that those in an object store are copied once.

    Args:
        scratch: A folder of this machine, for the copy; copies of other sets go.
    """
    if isinstance(folder, Path):
        return folder
    tables = {name: whole(folder / name) for name in PARTS}
    copy = scratch / "training_sets" / folder.name
    mark, asked = copy / "copied.json", json.dumps({name: str(table) for name, table in tables.items()})
    if not mark.is_file() or mark.read_text() != asked:
        delete_table(copy.parent)
        with ThreadPoolExecutor(8, "copy-set") as pool:
            for copied in [pool.submit(download_files, table, copy / name) for name, table in tables.items()]:
                copied.result()
        write_text(mark, asked)
    return copy


def prune(home: Place, keep: int) -> None:
    """Delete the rows of all but the newest sets. The data cards stay, to measure drift from."""
    made = sorted(path.parent for path in folder_of(home, date.min).parent.glob("*/clicks"))
    for folder in made[:-keep]:
        for part in PARTS:
            delete_table(folder / part)


def folder_of(home: Place, day: date) -> Place:
    return home / "training_sets" / day.isoformat()


def sha256(folder: Place) -> str:
    """One hash over the rows of the Parquet files of a folder, in order of their paths' folders and contents.

    Of the rows, not of the bytes: the JVM writes a column's list of encodings in an order that changes by the run.
    """
    length = len(str(folder)) + 1
    digests = sorted((str(file.parent)[length:] or ".", _rows_sha256(file)) for file in folder.rglob("*.parquet"))
    return hashlib.sha256(repr(digests).encode()).hexdigest()


def _rows_sha256(file: Place) -> str:
    digest = hashlib.sha256()
    with open_parquet(file) as rows:
        schema = rows.schema_arrow.remove_metadata()
        with _Hashed(digest) as sink, pa.ipc.new_stream(pa.PythonFile(sink, "w"), schema) as stream:
            for batch in rows.iter_batches():
                stream.write_batch(batch.replace_schema_metadata())
    return digest.hexdigest()


class _Hashed(io.RawIOBase):
    """A file whose content is hashed and not kept."""

    def __init__(self, digest: Any):
        self.digest = digest

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.digest.update(data)
        return len(data)
