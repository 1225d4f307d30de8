"""The bundle in service at another night's cut: its weights, with the state that this night's clicks make of it."""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_repo.card import DatasetCard, Side
from model import features
from model.bundle import Bundle
from model.features import InputSpec
from model.replay import Replay
from model.state import EntityState
from model.towers import Towers
from training.trained_model import TrainedModel
from training.training_set import TrainingSet

BY_ID = {
    "query_tower.ids.weight",
    "query_tower.recent.items.weight",
    "item_tower.ids.weight",
    "item_tower.closed.weight",
    "item_tower.closed_reading.weight",
}
"""Weights that have a row an id."""


def at_cut(
    bundle: Bundle, data: TrainingSet, catalogues: Mapping[str, pa.Table], card: DatasetCard, cut_ms: int
) -> TrainedModel | None:
    """A published model, brought up to a cut by replaying the window's clicks, as the stream would have.

    Its own state cannot be taken: it may hold clicks after this cut. None where it counts otherwise than the window's
    activity does (other half-lives), or reads features that the catalogue lacks.
    """
    manifest = bundle.manifest
    specs = {"query": manifest.query, "item": manifest.item}
    for name, spec in specs.items():
        side: Side = getattr(card, name)
        if spec.half_lives_ms != side.half_lives_ms or not _names(spec) <= set(side.tower_features):
            return None
    config = manifest.config
    queries = _state(data.queries, catalogues["query"], specs["query"], config.query_state_dim)
    items = _state(data.items, catalogues["item"], specs["item"], config.item_state_dim)
    weights = dict(bundle.towers.weights)
    query_rows, item_rows = _rows(data.queries, bundle.queries), _rows(data.items, bundle.items)
    for name in weights.keys() & BY_ID:
        weights[name] = weights[name][query_rows if name == "query_tower.ids.weight" else item_rows]
    towers = Towers.of(weights, manifest.query, manifest.item, manifest.config)
    replay = Replay(queries, items, manifest.query, manifest.item, manifest.config)
    for block in data.blocks(manifest.config.batch_size):
        replay.advance(block.clicks, replay.observe(block.clicks, towers), towers)
    model = TrainedModel(
        towers, queries, items, manifest.query, manifest.item, manifest.config, cut_ms, data.excludes_seen, []
    )
    return model.with_vectors(queries, items, cut_ms)


def _names(spec: InputSpec) -> set[str]:
    return {f.name for f in spec.categories} | {f.name for f in spec.numbers} | set(spec.times)


def _rows(new: EntityState, old: EntityState) -> np.ndarray:
    """[n+1] the old embedding's row for each row of the new one; 0, the unknown id's, where there is none."""
    rows = old.embedding_rows(old.rows(new.ids))
    return np.r_[0, rows]


def _state(new: EntityState, catalogue: pa.Table, spec: InputSpec, width: int) -> EntityState:
    """The window's activity with profiles as the old model encodes them, and empty augmented vectors."""
    state = new.copy()
    index = pc.index_in(pa.array(state.ids, pa.string()), catalogue["id"].combine_chunks().cast(pa.string()))
    columns = {name: catalogue[name].combine_chunks().take(index) for name in _names(spec)}
    profile = features.encode(spec, columns, len(state))
    state.columns |= {"codes": profile.codes, "numbers": profile.numbers, "times": profile.times}
    state.columns["a"] = np.zeros((len(state), width), np.float32)
    return state
