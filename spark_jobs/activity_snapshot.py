"""The activity of every key as a window opens, kept from night to night.

Activity counts all clicks that ever were. A night goes on from the newest snapshot of an earlier one, and counts the
clicks since, as long as the lake's older days are what they were then. A night thus costs its window and its keys,
however many nights there have been.
"""

import logging
from typing import NamedTuple

from pydantic import BaseModel, ValidationError
from pyspark.sql import DataFrame, SparkSession

from feature_repo.card import DatasetCard
from feature_repo.place import Place
from feature_repo.table import delete_table, whole, write_table
from spark_jobs import activity, lake

KEEP = 3
MADE = "made.json"
log = logging.getLogger(__name__)


class Mark(BaseModel):
    """What a snapshot was made of; it is written last."""

    counted: str
    dates: dict[str, str]


class Activity(NamedTuple):
    """Both sides' activity before a moment, and each query's recent items."""

    query: DataFrame
    item: DataFrame
    recent: DataFrame


def snapshot(
    spark: SparkSession,
    folder: Place,
    clicks: DataFrame,
    landed: Place,
    card: DatasetCard,
    at_ms: int,
    keep: bool = True,
) -> Activity:
    """The activity of all clicks before a moment.

    Args:
        folder: Where snapshots are kept, one a moment.
        clicks: All clicks of the lake, which is the folder ``landed``.
        keep: Whether later nights may go on from this one: not if some clicks of the lake are missing from ``clicks``.
    """
    counted = repr(
        (card.query.half_lives_ms, card.item.half_lives_ms, card.history, card.clicks.ties, card.clicks.events)
    )
    dates = lake.fingerprints(landed)
    since, earlier = _newest(spark, folder, counted, dates, card, at_ms, lake.retired(landed))
    final = folder / f"at={at_ms}"
    if earlier is not None and since == at_ms:
        return earlier
    if earlier is None and lake.retired(landed):
        log.warning("what was clicked up to %s counts no more: its clicks are deleted, and its counts of no use to a "
                    "card that counts otherwise, or to a date before them", lake.retired(landed))  # fmt: skip
    new = clicks.where(lake.between(card, since, at_ms))
    states = {
        side: activity.state_after(new, f"{side}_id", half_lives, getattr(earlier, side, None))
        for side, half_lives in (("query", card.query.half_lives_ms), ("item", card.item.half_lives_ms))
    }
    recent = activity.recent_items(new, card.history, lake.fold_order(card), earlier.recent if earlier else None)

    with write_table(final) as staging:
        for name, rows in (*states.items(), ("recent", recent)):
            rows.write.parquet(str(staging / name))
        if keep:
            mark = Mark(counted=counted, dates=lake.before(card, dates, at_ms))
            (staging / MADE).write_bytes(mark.model_dump_json().encode())
    for old in sorted(folder.glob("at=*"), key=_moment)[:-KEEP]:
        if old != final:
            delete_table(old)
    return _read(spark, final)


def is_kept(folder: Place, at_ms: int) -> bool:
    """Whether later nights may go on from a moment's snapshot."""
    return (whole(folder / f"at={at_ms}") / MADE).is_file()


def _newest(
    spark: SparkSession, folder: Place, counted: str, dates: dict[str, str], card: DatasetCard, at_ms: int, retired: str
) -> tuple[int, Activity | None]:
    """The newest usable snapshot up to a moment, and its own moment; 0 and None where there is none."""
    for path in sorted(folder.glob("at=*"), key=_moment, reverse=True):
        moment = _moment(path)
        if moment > at_ms:
            continue
        try:
            mark = Mark.model_validate_json((whole(path) / MADE).read_text())
        except (OSError, ValidationError):
            continue
        kept = {day: files for day, files in mark.dates.items() if day > retired}
        if mark.counted == counted and kept == lake.before(card, dates, moment):
            return moment, _read(spark, path)
    return 0, None


def _moment(path: Place) -> int:
    return int(path.name.removeprefix("at="))


def _read(spark: SparkSession, folder: Place) -> Activity:
    made = whole(folder)
    return Activity(*(spark.read.parquet(str(made / name)) for name in Activity._fields))
