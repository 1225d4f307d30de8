"""The date of a click, in Spark's SQL and in DuckDB's: the lake's partitions. See :mod:`model.windows`."""

from pyspark.sql import Column
from pyspark.sql import functions as F

from feature_repo.card import DatasetCard
from feature_repo.reader.text import literal


def day_column(card: DatasetCard, time_ms: Column) -> Column:
    """The date on which the card's day of a time (a column of ms) begins, ``YYYY-MM-DD``: the lake's partitions."""
    clock = F.unix_millis(F.from_utc_timestamp(F.timestamp_millis(time_ms), card.timezone))
    start = F.floor(clock / F.lit(card.day_ms)) * F.lit(card.day_ms)
    return F.date_format(F.timestamp_millis(start.cast("long")), "yyyy-MM-dd")


def date_sql(card: DatasetCard, time_ms: str) -> str:
    """The same as :func:`day_column`, in DuckDB's SQL."""
    clock = f"epoch_ms(make_timestamptz({time_ms} * 1000) AT TIME ZONE {literal(card.timezone)})"
    return f"strftime(make_timestamp(({clock} // {card.day_ms}) * {card.day_ms} * 1000), '%Y-%m-%d')"
