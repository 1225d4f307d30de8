"""Train on a finished training set, evaluate on its test clicks, and make the bundle."""

import hashlib
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from evaluation.baselines.popularity import Popularity
from evaluation.dat_scorer import LiveDAT, StaticDAT
from evaluation.metrics import Metrics, Report, report
from evaluation.ranks import rank_clicks
from evaluation.test_clicks import TestClicks, extend, make_test
from feature_repo.card import DatasetCard
from feature_repo.place import Place
from feature_repo.table import dataset, whole
from model.bundle import Bundle, Manifest, now
from model.closed_form_choice import ClosedFormChoice
from model.event_weights import weights_of
from model.replay import ClickRows, Replay
from model.settings.model import DATConfig
from spark_jobs.code_version import code_version
from training.build import in_fold_order
from training.trained_model import TrainedModel
from training.training_set import TrainingSet

HOUR_MS = 3_600_000
FOLD_BLOCK = 256
PIECE = 256 * FOLD_BLOCK  # clicks that are read at a time


def version_of(day: str, card: dict, config: DATConfig, parent: str | None) -> str:
    """A bundle's version: its date and a hash of all that it is made from, so that a re-run makes the same one.

    Args:
        config: As given: what it leaves open follows from the training set and the parent.
    """
    made_from = json.dumps([card["sha256"], config.model_dump_json(), parent])
    return f"{day}-{hashlib.sha256(made_from.encode()).hexdigest()[:8]}"


def in_pieces(folder: Path, size: int = PIECE) -> Iterator[pa.Table]:
    """The clicks of ``test`` or ``later``, which lie in the order of the fold, so many at a time."""
    held = None
    for file in sorted(folder.rglob("*.parquet")):
        with pq.ParquetFile(file) as opened:
            for batch in opened.iter_batches(size):
                read = pa.Table.from_batches([batch])
                held = pa.concat_tables([held, read]) if held else read
                while len(held) >= size:
                    yield held.slice(0, size)
                    held = held.slice(size)
    if held:
        yield held


def read_clicks(folder: Path, card: DatasetCard, first: int | None = None) -> pa.Table:
    """The first so many clicks of ``test``, or all, in the order of the fold."""
    read: list[pa.Table] = []
    for piece in in_pieces(folder):
        read.append(piece)
        if first and sum(map(len, read)) >= first:
            break
    return in_fold_order(pa.concat_tables(read) if read else pq.read_table(folder), card).slice(0, first)


def read_catalogues(offline: Place) -> dict[str, pa.Table]:
    """Both catalogues as the night wrote them for Feast, with their key called ``id``."""
    return {
        side: dataset(sorted(whole(offline / f"{side}_profile" / "part=all").glob("*.parquet")))
        .to_table()
        .rename_columns({f"{side}_id": "id"})
        for side in ("query", "item")
    }


def test_clicks(
    data: TrainingSet, test: pa.Table, catalogues: dict[str, pa.Table], card: DatasetCard, cut_ms: int
) -> TestClicks:
    """A set's test clicks, as ``dat evaluate`` makes them."""
    queries, items = data.at_cut
    return make_test(
        test, catalogues, card, queries, items, data.query_spec, data.item_spec, data.excludes_seen, cut_ms
    )


def evaluate(
    model: TrainedModel, test: TestClicks, live: bool, on_clicks: Callable[[int], None] = lambda clicks: None
) -> Report:
    """Hit rates with the vectors of the cut, or folding in each click once it was predicted."""
    return report(rank_clicks((LiveDAT if live else StaticDAT)(model, test), test, on_clicks), test)


def clicks_for(model: TrainedModel, test: pa.Table, catalogues: dict[str, pa.Table], card: DatasetCard) -> TestClicks:
    """The same test clicks over the state of another model at the cut."""
    return make_test(
        test, catalogues, card, model.queries, model.items, model.query_spec, model.item_spec, model.excludes_seen,
        model.cut_ms,
    )  # fmt: skip


def trailing_popularity(data: TrainingSet, test: TestClicks, live: bool) -> float:
    """HR@100 of the most clicked items of the last hour, or of the last day: the better one."""
    rates = []
    for trailing_ms in (HOUR_MS, 24 * HOUR_MS):
        popularity = Popularity(trailing_ms)
        popularity.fit(data, test.cut_ms)
        rates.append(Metrics.of(rank_clicks(popularity.scorer(test, live), test)).hr100)
    return max(rates)


def fold_later(model: TrainedModel, folder: Path, catalogues: dict[str, pa.Table], card: DatasetCard) -> TrainedModel:
    """The model's state after the clicks behind the window that the stream will not deliver (``later`` of the set)."""
    ids = {name: pa.array([], pa.string()) for name in ("query_id", "item_id")}
    for piece in in_pieces(folder):
        ids = {name: pc.unique(pa.concat_arrays([ids[name], piece[name].unique()])) for name in ids}
    if not len(ids["query_id"]):
        return model
    queries = extend(model.queries, ids["query_id"], catalogues["query"], card.query, model.query_spec)
    items = extend(model.items, ids["item_id"], catalogues["item"], card.item, model.item_spec)
    items.columns["since"][len(model.items) :] = np.iinfo(np.int64).max
    replay, until = Replay(queries, items, model.query_spec, model.item_spec, model.config), model.cut_ms
    for piece in in_pieces(folder):
        times, rows = piece["event_time"].to_numpy(), items.rows(piece["item_id"].to_pylist())
        new = rows >= len(model.items)
        np.minimum.at(items.columns["since"], rows[new], times[new])
        weights = weights_of(piece, card.clicks.rule)
        clicks = ClickRows(queries.rows(piece["query_id"].to_pylist()), rows, times, np.arange(len(times)), weights)
        for block in clicks.blocks(FOLD_BLOCK):
            part = clicks[block]
            replay.advance(part, replay.observe(part, model.towers), model.towers)
        until = max(until, int(times.max()) + 1)
    return model.with_vectors(queries, items, until)


def make_bundle(
    model: TrainedModel, version: str, dataset: DatasetCard, card: dict, offsets: dict[int, int],
    services: dict[str, dict[str, str]], reports: dict[str, Report], parent: str | None,
    choice: ClosedFormChoice | None = None,
) -> Bundle:  # fmt: skip
    """The bundle of a trained model. ``card`` is the training set's data card; ``reports``: static and live, if any."""
    sizes = {"queries": len(model.queries), "items": len(model.items)}
    metrics = {f"{name}_{key}": value for name, of in reports.items() for key, value in of.all.model_dump().items()}
    parts: dict[str, dict[str, float]] = {}
    for name, of in reports.items():
        for part, values in of.parts.items():
            rates = values.model_dump()
            clicks = {"clicks": rates.pop("clicks")}
            parts[part] = parts.get(part, clicks) | {f"{name}_{key}": value for key, value in rates.items()}
    manifest = Manifest(
        version=version,
        dataset=dataset.name,
        created=now(),
        window=(_moment(card["start"]), _moment(card["cut"])),
        offsets=offsets,
        rule=dataset.clicks.rule,
        config=model.config,
        query=model.query_spec,
        item=model.item_spec,
        services=services,
        excludes_seen=model.excludes_seen,
        metrics=metrics | sizes,
        parts=parts,
        lineage={
            "training_set": card["sha256"],
            "parent": parent or "",
            "seed": str(card["seed"]),
            "cut_by": card["cut_by"],
        }
        | code_version(),
        chosen=card.get("chosen", {}),
        closed_form=choice,
    )
    return Bundle(manifest, model.towers, model.queries, model.items)


def _moment(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)
