"""Leave-last-out, the night's other cut: a model is tried on each query's last click of the window, not on a later day.

What is held out is known to nothing that a set is made of: features, negatives, corpus and states are those of a log
without these clicks. So they cannot be lent between nights either: what is last changes from one to the next.
"""

from dataclasses import replace
from typing import Literal

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from feature_repo.card import DatasetCard
from spark_jobs.config import NightConfig
from spark_jobs.days import Window


def cut_by(card: DatasetCard, config: NightConfig) -> Literal["day", "last-out"]:
    """What the settings ask for, or what the log can give: one of positions has no next day."""
    return config.cut or ("last-out" if card.clicks.time_unit == "position" else "day")


def closing(window: Window, clicks: DataFrame) -> Window:
    """The window, closed just after its newest click: what is asked of it follows on that, however early it was."""
    before = clicks.where(F.col("event_time").between(window.start, window.cut - 1))
    newest = before.agg(F.max("event_time")).first()[0]
    return window if newest is None else replace(window, cut=newest + 1)


def hold_out(clicks: DataFrame, window: Window) -> tuple[DataFrame, DataFrame]:
    """The clicks from before the cut but each query's last of the window, and these last ones.

    Of a query's clicks at one moment the last is that of the greatest hash, as in its history.
    """
    before = clicks.where(F.col("event_time") < window.cut)
    order = F.struct("event_time", F.xxhash64("event_id"), "event_id")
    in_window = before.where(F.col("event_time") >= window.start)
    last = in_window.groupBy("query_id").agg(F.max(order).alias("last"))
    last = last.select("last.event_id", "last.event_time").persist()  # a row a query, asked for by every stage
    kept, held = (before.join(last, ["event_id", "event_time"], how) for how in ("anti", "semi"))
    return kept.select(*clicks.columns), held.select(*clicks.columns)
