"""Catalogues, and features as of their time, written to Feast's offline history.

``profile``: the catalogue's rows, known from the beginning (or from the item's creation) · ``activity``:
:mod:`spark_jobs.activity`.
"""

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from feature_repo.card import DatasetCard, Side
from feature_repo.place import Place
from feature_repo.table import whole, write_table


def read_profiles(spark: SparkSession, card: DatasetCard, folder: Place, side_name: str) -> DataFrame:
    """A side's catalogue with Feast's columns: ``<side>_id``, a column a feature, ``known``, the two timestamps.

    Args:
        folder: Where :func:`spark_jobs.land_catalogue.land_catalogue` has put it.
    """
    side: Side = getattr(card, side_name)
    known = spark.read.parquet(str(whole(folder) / "rows.parquet")).withColumnRenamed("id", f"{side_name}_id")
    since = F.timestamp_millis(F.coalesce(side.created, F.lit(0))) if side.created else F.lit(0).cast("timestamp")
    return known.select(
        "*", F.lit(1).cast("long").alias("known"), since.alias("event_timestamp"), since.alias("created_timestamp")
    )


def write_history(rows: DataFrame, offline: Place, view: str, partition: str = "all") -> None:
    """Write rows as a view's offline history, in place of what the partition held."""
    # Small row groups: who asks for one day's rows skips the others by their times.
    with write_table(offline / view / f"part={partition}") as folder:
        rows.write.option("parquet.block.size", 4 << 20).parquet(str(folder))
