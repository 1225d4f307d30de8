"""Days, as the dataset card counts them: the lake is partitioned by them, and windows are made of them.

A card's days are counted from the epoch by the clock of its time zone, so a day of ``1d`` is the date there, also where
the clock is put forward or back.
"""

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

from feature_repo.card import DatasetCard


@dataclass(frozen=True)
class Window:
    """The clicks of a nightly run: train on [start, cut), test on [cut, end); ms since the epoch, UTC."""

    start: int
    cut: int
    end: int


def begins(card: DatasetCard, day: date) -> int:
    """When a date begins in the card's zone, ms since the epoch."""
    return _moment(card, datetime(day.year, day.month, day.day))


def _moment(card: DatasetCard, clock: datetime) -> int:
    return round(clock.replace(tzinfo=ZoneInfo(card.timezone)).timestamp() * 1000)


def day_of(card: DatasetCard, moment_ms: int) -> date:
    """The date on which the card's day of a moment begins."""
    clock = datetime.fromtimestamp(moment_ms / 1000, ZoneInfo(card.timezone)).replace(tzinfo=UTC)
    start = int(clock.timestamp() * 1000) // card.day_ms * card.day_ms
    return datetime.fromtimestamp(start / 1000, UTC).date()


def window(card: DatasetCard, day: date, days: int) -> Window:
    """The ``days`` days before ``day`` to train on, and the day that begins then to test on."""
    cut, length = datetime(day.year, day.month, day.day), timedelta(milliseconds=card.day_ms)
    return Window(_moment(card, cut - days * length), _moment(card, cut), _moment(card, cut + length))


def latest(card: DatasetCard, last_click_ms: int, last_out: bool = False) -> date:
    """The date whose test day ends with the date of the last click: the newest that can be tested on.

    Args:
        last_out: No day is tested on: the date after that of the last click.
    """
    after = datetime.fromtimestamp(last_click_ms / 1000, ZoneInfo(card.timezone)).date() + timedelta(days=1)
    return after if last_out else after - timedelta(milliseconds=card.day_ms)
