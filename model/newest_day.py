"""Which day is the newest that a model can be tested on, and what is said of those that are passed over."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

from feature_repo.card import DatasetCard
from feature_repo.limits import QUIET_MS, WEEK
from model.windows import begins

DAY_MS = 86_400_000
STRAY = 3  # days, that a few clicks with wrong clocks may have
LOOKED_AT = 1 + WEEK + STRAY
"""Days with clicks that are looked at, from the last one back."""
DayCount = tuple[date, int, int]
"""A date, how many clicks it has, and the time of the last one, ms."""


@dataclass(frozen=True)
class NewestDay:
    """The time of the last click of the newest whole day, ms, and a line for each later day."""

    last_ms: int
    passed_over: list[str] = field(default_factory=list)


def newest_day(card: DatasetCard, days: Sequence[DayCount], min_day: float) -> NewestDay:
    """The newest whole day of some that have clicks, in order.

    A day with fewer clicks than ``min_day`` of those before it holds wrong clocks; one that ends over an hour earlier
    than each of the week before has not ended yet. Only where a card's day is one day is this looked at.
    """
    rows, passed_over = list(days[-LOOKED_AT:]), list[str]()
    while card.day_ms == DAY_MS and len(rows) > 2:
        day, count, last = rows[-1]
        before = rows[-1 - WEEK : -1]
        usual = statistics.median(count for _, count, _ in before)
        if count < min_day * usual and len(passed_over) < STRAY:
            passed_over.append(
                f"{day} has {count:,} clicks, where {usual:,.0f} are usual: not taken for the newest day"
            )
        elif _quiet(card, day, last) > QUIET_MS + max(_quiet(card, day, last) for day, _, last in before):
            at = datetime.fromtimestamp(last / 1000, ZoneInfo(card.timezone))
            passed_over.append(
                f"{day} has not ended: its last click is of {at:%H:%M}, so the day before it is the newest"
            )
            rows.pop()
            break
        else:
            break
        rows.pop()
    return NewestDay(max(last for _, _, last in rows), passed_over)


def _quiet(card: DatasetCard, day: date, last_ms: int) -> int:
    """How long before its end a day's last click was, ms."""
    return begins(card, day + timedelta(days=1)) - last_ms
