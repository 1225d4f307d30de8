"""Days, as the dataset card counts them: the lake is partitioned by them, and windows are made of them."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from pyspark.sql import Column
from pyspark.sql import functions as F

from feature_repo.card import DatasetCard


@dataclass(frozen=True)
class Window:
    """The clicks of a nightly run: train on [start, cut), test on [cut, end); ms since the epoch, UTC."""

    start: int
    cut: int
    end: int


def window(card: DatasetCard, day: date, days: int) -> Window:
    """The ``days`` days before ``day`` to train on, and the day that begins then to test on."""
    cut = int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp() * 1000)
    return Window(cut - days * card.day_ms, cut, cut + card.day_ms)


def latest(card: DatasetCard, last_click_ms: int, last_out: bool = False) -> date:
    """The date whose test day ends with the date of the last click: the newest that can be tested on.

    Args:
        last_out: No day is tested on: the date after that of the last click.
    """
    after = datetime.fromtimestamp(last_click_ms / 1000, UTC).date() + timedelta(days=1)
    return after if last_out else after - timedelta(milliseconds=card.day_ms)


def day_column(card: DatasetCard, time_ms: Column) -> Column:
    """The date on which the card's day of a time (a column of ms) begins, ``YYYY-MM-DD``: the lake's partitions.

    Days are counted from the epoch, so a card's day of ``1d`` is the calendar date (UTC).
    """
    start = F.floor(time_ms / F.lit(card.day_ms)) * F.lit(card.day_ms)
    return F.date_format(F.timestamp_millis(start.cast("long")), "yyyy-MM-dd")
