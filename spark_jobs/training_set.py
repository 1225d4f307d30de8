"""The training set of a night: ten days of positives with negatives, every feature as of just before the click.

``training_sets/<date>/`` holds

``positives/date=D/``    what Spark sampled: event_id, query_id, event_time, candidates (the clicked item, S others)
``train/date=D/``        the same in order of time, with what each tower reads: ``query__*``, ``item__*`` (1+S values)
``test/``                the clicks of the day after the window, or the last ones that were held out of it
``query_state.parquet``, ``item_state.parquet``   every id as of the cut
``corpus/``              the items and since when they exist
``card.json``            the data card: counts, imbalance, coverage, drift, and what was dropped
"""

import json
import shutil
from collections.abc import Callable
from datetime import date
from pathlib import Path

from feast import FeatureStore
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from feature_repo.card import DatasetCard
from feature_repo.store import open_spark_store
from spark_jobs import joins, validate
from spark_jobs.carry import PAST
from spark_jobs.config import NightConfig
from spark_jobs.data_card import describe
from spark_jobs.days import Window, day_column
from spark_jobs.features import as_of, latest_items, read_history, state_at
from spark_jobs.last_out import cut_by
from spark_jobs.negatives import corpus, with_negatives
from spark_jobs.session import side_by_side
from spark_jobs.tables import replace, sha256
from training.shares import CategoryShares


def sample(
    clicks: DataFrame,
    test: DataFrame,
    profiles: dict[str, DataFrame],
    card: DatasetCard,
    window: Window,
    config: NightConfig,
    folder: Path,
    offline: Path,
) -> None:
    """The Spark half: positives with negatives, the test clicks and the states at the cut, in place of earlier ones.

    Args:
        clicks: All clicks, or those from the window's start on. test: Those that the model will be tried on.
        profiles: The catalogues by side.
        offline: Where the activity after each click, and the queries' past, have been written.
    """

    def write(staging: Path) -> None:
        spark = clicks.sparkSession
        in_window = clicks.where(F.col("event_time").between(window.start, window.cut - 1))
        newest = {side: as_of(read_history(spark, offline, f"{side}_activity"), window.cut) for side in profiles}
        items = corpus(in_window, newest["item"], profiles["item"], card, window.cut)
        items.coalesce(1).write.parquet(str(staging / "corpus"))
        items = spark.read.parquet(str(staging / "corpus"))
        positives = with_negatives(in_window, staging / "corpus", config.negatives, config.negative_mix, config.seed)
        dated = positives.withColumn("date", day_column(card, F.col("event_time")))
        tried = test.select("event_id", "query_id", "item_id", "event_time").orderBy("event_time", "event_id")
        listed = profiles["item"].join(items.select("item_id"), "item_id", "semi")
        item = state_at(newest["item"], listed, "item", card).orderBy("id")
        latest = latest_items(in_window, card.history, read_history(spark, offline, PAST))
        query = state_at(newest["query"], profiles["query"], "query", card)
        query = query.join(latest.withColumnRenamed("query_id", "id"), "id", "left").orderBy("id")
        side_by_side(
            spark,
            lambda: dated.write.partitionBy("date").parquet(str(staging / "positives")),
            lambda: tried.write.parquet(str(staging / "test")),
            lambda: query.write.parquet(str(staging / "query_state.parquet")),
            lambda: item.write.parquet(str(staging / "item_state.parquet")),
        )

    replace(folder, write)


def join(
    store: FeatureStore,
    card: DatasetCard,
    window: Window,
    config: NightConfig,
    folder: Path,
    on_rows: Callable[[int], None],
    shares: CategoryShares | None = None,
    spark: SparkSession | None = None,
) -> None:
    """The point-in-time join: ``train/``, and with it the data card, which says that the set is finished.

    Args:
        on_rows: Told how many positives each step has joined.
        spark: For ``config.join = "spark"``.

    Raises:
        BadNight: the rows break a rule.
    """
    positives = folder / "positives"

    def write(staging: Path) -> None:
        if config.join == "spark":
            joins.feast_spark(spark, open_spark_store(store.repo_path, card), card, positives, staging)
        elif config.join == "duckdb":
            joins.feast_duckdb(store, card, positives, staging, on_rows, config.join_rows)
        else:
            joins.one_pass(store, card, positives, staging, on_rows)

    replace(folder / "train", write)
    validate.check_set(folder / "train", window, config.negatives)
    _write_card(folder, card, window, config, shares)


def _write_card(
    folder: Path, dataset: DatasetCard, window: Window, config: NightConfig, shares: CategoryShares | None
) -> None:
    before = _last(folder)
    card = {
        "date": folder.name,
        "start": window.start,
        "cut": window.cut,
        "end": window.end,
        "cut_by": cut_by(dataset, config),
        "negatives": config.negatives,
        "negative_mix": config.negative_mix.model_dump(),
        "seed": config.seed,
        "shares": shares.model_dump() if shares else None,
        **describe(folder, dataset, before),
        "sha256": sha256(folder / "train"),
    }
    validate.check_card(card, dataset, config.rules)
    staging = folder / ".card.json"
    staging.write_text(json.dumps(card, indent=2))
    staging.rename(folder / "card.json")


def _last(folder: Path) -> dict | None:
    """The data card of the newest earlier set beside this one."""
    earlier = sorted(path for path in folder.parent.glob("*/card.json") if path.parent.name < folder.name)
    return json.loads(earlier[-1].read_text()) if earlier else None


def data_card(folder: Path) -> dict | None:
    """The data card of a finished training set, of which no more may have been kept; None if it is not finished."""
    path = folder / "card.json"
    return json.loads(path.read_text()) if path.is_file() else None


def has_rows(folder: Path) -> bool:
    """Whether the rows of a finished set are still kept."""
    return (folder / "train").is_dir()


def prune(home: Path, keep: int) -> None:
    """Delete the rows of all but the newest sets. The data cards stay, to measure drift from."""
    made = sorted(path.parent for path in folder_of(home, date.min).parent.glob("*/train"))
    for folder in made[:-keep]:
        for part in ("train", "positives", "test", "corpus", "query_state.parquet", "item_state.parquet"):
            shutil.rmtree(folder / part, ignore_errors=True)


def folder_of(home: Path, day: date) -> Path:
    return home / "training_sets" / day.isoformat()
