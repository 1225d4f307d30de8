"""Train on a finished training set, evaluate on its test day, and make the bundle."""

import hashlib
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo.card import DatasetCard
from spark_jobs.code import code_version
from spark_jobs.config import NightConfig
from training.bundle import Bundle, Manifest, now
from training.collapse import EpochReport
from training.evaluation import Report, measure, report
from training.examples import load_training_set
from training.fitted import Fitted
from training.live import LiveDAT, StaticDAT
from training.replay import Replay, make_replay
from training.trainer import fit


def version_of(day: str, card: dict, config: NightConfig, parent: str | None) -> str:
    """A bundle's version: its date and a hash of all that it is made from, so that a re-run makes the same one."""
    made_from = json.dumps([card["sha256"], config.model.model_dump_json(), config.processes, parent])
    return f"{day}-{hashlib.sha256(made_from.encode()).hexdigest()[:8]}"


def train(
    folder: Path, dataset: DatasetCard, config: NightConfig, parent: Bundle | None, cut_ms: int,
    on_epoch: Callable[[EpochReport], None], checkpoint: Path,
) -> Fitted:  # fmt: skip
    """Fit the model to ``training_sets/<date>``, from the parent's weights if there is one; see :func:`fit`."""
    data = load_training_set(folder, dataset)
    return fit(
        data.examples, data.query, data.item, data.query_spec, data.item_spec,
        config.model, parent, on_epoch, cut_ms, checkpoint,
    )  # fmt: skip


def test_ranks(
    fitted: Fitted, test: pa.Table, profiles: dict[str, pa.Table], dataset: DatasetCard, cut_ms: int, live: bool,
    on_clicks: Callable[[int], None] = lambda clicks: None,
) -> np.ndarray:  # fmt: skip
    """The rank of each test click's item: as the night left the model, or folding in each click once predicted."""
    return _rank(fitted, _replay(fitted, test, profiles, dataset), cut_ms, live, on_clicks)


def test_report(
    fitted: Fitted, test: pa.Table, profiles: dict[str, pa.Table], dataset: DatasetCard, cut_ms: int, live: bool,
    on_clicks: Callable[[int], None] = lambda clicks: None,
) -> Report:  # fmt: skip
    """Hit rates of the same, over all test clicks and by part."""
    replay = _replay(fitted, test, profiles, dataset)
    return report(_rank(fitted, replay, cut_ms, live, on_clicks), replay)


def _replay(fitted: Fitted, test: pa.Table, profiles: dict[str, pa.Table], dataset: DatasetCard) -> Replay:
    return make_replay(test, profiles, dataset, fitted.queries, fitted.items, fitted.query_spec, fitted.item_spec)


def _rank(fitted: Fitted, replay: Replay, cut_ms: int, live: bool, on_clicks: Callable[[int], None]) -> np.ndarray:
    scorer = LiveDAT(fitted, replay) if live else StaticDAT(fitted, replay, cut_ms)
    return measure(scorer, replay, on_block=on_clicks)


def read_test(folder: Path) -> pa.Table:
    """The clicks that a model is tried on, in order of time."""
    return pq.read_table(folder / "test").sort_by([("event_time", "ascending"), ("event_id", "ascending")])


def read_catalogues(offline: Path) -> dict[str, pa.Table]:
    """Both catalogues as the night wrote them for Feast, with their key called ``id``."""
    return {
        side: pq.read_table(offline / f"{side}_profile" / "part=all").rename_columns({f"{side}_id": "id"})
        for side in ("query", "item")
    }


def make_bundle(
    fitted: Fitted, version: str, dataset: DatasetCard, card: dict, offsets: dict[int, int],
    services: dict[str, dict[str, str]], reports: dict[str, Report], parent: str | None,
) -> Bundle:  # fmt: skip
    """The bundle of a trained model. ``card`` is the training set's data card; ``reports``: static and live, if any."""
    sizes = {"queries": len(fitted.queries.ids), "items": len(fitted.items.ids)}
    metrics = {f"{name}_{key}": value for name, of in reports.items() for key, value in of.all.model_dump().items()}
    parts: dict[str, dict[str, float]] = {}
    for name, of in reports.items():
        for part, found in of.parts.items():
            values = found.model_dump()
            clicks = {"clicks": values.pop("clicks")}
            parts[part] = parts.get(part, clicks) | {f"{name}_{key}": value for key, value in values.items()}
    manifest = Manifest(
        version=version,
        dataset=dataset.name,
        created=now(),
        window=tuple(datetime.fromtimestamp(card[key] / 1000, UTC) for key in ("start", "cut")),
        offsets=offsets,
        config=fitted.config,
        query=fitted.query_spec,
        item=fitted.item_spec,
        services=services,
        metrics=metrics | sizes,
        parts=parts,
        lineage={
            "training_set": card["sha256"],
            "parent": parent or "",
            "seed": str(card["seed"]),
            "cut_by": card.get("cut_by", "day"),
        }
        | code_version(),
    )
    return Bundle(manifest, fitted.model, fitted.queries, fitted.items)
