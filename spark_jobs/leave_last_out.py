"""The other cut: a model is evaluated on each query's last click of the window, which is then left out of training.

Nothing that a set is made of knows the clicks that are left out: features, negatives and states are those of a log
without them.
"""

from typing import Literal

from pyspark.sql import DataFrame
from pyspark.sql import Window as Over
from pyspark.sql import functions as F

from feature_repo.card import DatasetCard
from model.settings.night import NightConfig
from spark_jobs.lake import fold_order
from training.build import SPAN_MS


def cut_by(card: DatasetCard, config: NightConfig) -> Literal["day", "last-out"]:
    """What the settings ask for, or what the log can give: a log of positions has no next day."""
    return config.cut or ("last-out" if card.clicks.timeless else "day")


def leave_last_out(clicks: DataFrame, card: DatasetCard) -> tuple[DataFrame, DataFrame]:
    """The window's clicks without each query's last, and these last ones."""
    query = Over.partitionBy("query_id")
    last = F.row_number().over(query.orderBy(*fold_order(card))) == F.count("*").over(query)
    marked = clicks.withColumn("last", last).persist()
    return marked.where("NOT last").drop("last"), marked.where("last").drop("last")


def lay_out(clicks: DataFrame, card: DatasetCard) -> DataFrame:
    """Clicks whose times are positions, with event times of one common span: :func:`training.build.lay_out`."""
    query = Over.partitionBy("query_id")
    number = F.row_number().over(query.orderBy(*fold_order(card))) - 1
    phase = F.crc32(F.col("query_id").cast("binary")) / F.lit(2.0**32)
    moment = F.floor((number + phase) / F.count("*").over(query) * SPAN_MS).cast("long") + 1
    return clicks.withColumn("event_time", moment)
