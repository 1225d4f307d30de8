"""What a night takes over from an earlier one: the state of every key as its window opens.

Activity counts all clicks that ever were. A night reads those of its window; for the clicks before them it goes on from
the history that an earlier night wrote, as long as the lake's older days are what they were then. So a night costs its
window and its keys, however many nights there have been.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pydantic import BaseModel, ValidationError
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from feature_repo.card import DatasetCard
from spark_jobs import features, lake
from spark_jobs.session import side_by_side
from training.shares import CategoryShares

PAST = "query_past"  # the queries' latest items as of the history's start


class _Mark(BaseModel):
    """What a history was made of. It is written after the history, and deleted before the next one is."""

    start: int
    counted: str
    dates: dict[str, str]


@dataclass(frozen=True)
class Earlier:
    """The state just before ``start`` (ms): activity by side, and each query's latest items."""

    start: int
    activity: dict[str, DataFrame]
    past: DataFrame


def _file(offline: Path) -> Path:
    return offline / "made.json"


def _counted(card: DatasetCard, shares: CategoryShares | None) -> str:
    return repr((card.query.half_lives_ms, card.item.half_lives_ms, card.history, shares))


def find(
    spark: SparkSession, offline: Path, clicks: Path, card: DatasetCard, shares: CategoryShares | None, start_ms: int
) -> Earlier | None:
    """The state at a moment by an earlier night's history; None where there is none, or not of these clicks.

    Args:
        clicks: The lake's folder.
    """
    try:
        mark = _Mark.model_validate_json(_file(offline).read_text())
    except (OSError, ValidationError):
        return None
    dates = [lake.before(found, start_ms) for found in (mark.dates, lake.fingerprints(clicks))]
    if mark.start > start_ms or mark.counted != _counted(card, shares) or dates[0] != dates[1]:
        return None
    activity = {
        side: features.as_of(features.read_history(spark, offline, f"{side}_activity"), start_ms)
        for side in ("query", "item")
    }
    return Earlier(mark.start, activity, features.read_history(spark, offline, PAST))


def write(
    clicks: DataFrame, folder: Path, offline: Path, card: DatasetCard, items: DataFrame,
    shares: CategoryShares | None, start_ms: int, go_on: bool = True,
) -> None:  # fmt: skip
    """Write both sides' activity from a moment on, with the newest of each key before it, and the queries' past.

    Args:
        clicks: All that there are. folder: The lake's, which they are from.
        items: The items' catalogue, for their categories.
        go_on: From an earlier night's history, and let a later night go on from this one; False where clicks are
            left out that others count.
    """
    spark = clicks.sparkSession
    dates = lake.fingerprints(folder)
    earlier = find(spark, offline, folder, card, shares, start_ms) if go_on else None
    before = clicks.where(F.col("event_time") < start_ms)
    if earlier:
        before = before.where(F.col("event_time") >= earlier.start)
        clicks = clicks.where(F.col("event_time") >= start_ms)
    past = features.latest_items(before, card.history, earlier and earlier.past)
    counted = features.with_columns(clicks, items, shares)
    made = {
        side: features.activity(
            of, side, half_lives, counts, start_ms, earlier and earlier.activity[side]
        )
        for side, of, half_lives, counts in (
            ("query", counted, card.query.half_lives_ms, shares), ("item", clicks, card.item.half_lives_ms, None)
        )
    }  # fmt: skip
    _file(offline).unlink(missing_ok=True)
    side_by_side(
        spark,
        lambda: features.write_history(past, offline, PAST),
        *(partial(features.write_history, rows, offline, f"{side}_activity") for side, rows in made.items()),
    )
    if go_on:
        mark = _Mark(start=start_ms, counted=_counted(card, shares), dates=dates)
        _file(offline).write_text(mark.model_dump_json())
