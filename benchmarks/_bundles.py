"""Bundles to measure with: a trained model of MovieLens-100K, and the same at any number of queries and items."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import faiss
import numpy as np

from model.bundle import Bundle, Manifest
from model.folds import item_vectors, query_inputs
from model.state import EntityState
from model.towers import Towers
from training.bring_up import BY_ID

Array = np.ndarray
_AT_ONCE = 1 << 16  # rows of which vectors are computed in one go


def trained_bundle(downloads: Path, epochs: int = 1) -> Bundle:
    """DAT after a short training on MovieLens-100K, which is fetched if it is not there."""
    from evaluation.splits import make_split
    from feature_repo.reader.catalogue import read_catalogue
    from feature_repo.reader.clicks import read_clicks
    from feature_repo.source import dataset_folder
    from feature_repo.views import define
    from model.settings.model import NO_CLOSED_FORM, DATConfig
    from model.settings.settings import Settings
    from training.fit import fit

    settings = Settings(dataset="movielens-100k")
    card, config = settings.card, DATConfig(epochs=epochs, closed_form=NO_CLOSED_FORM)
    folder = dataset_folder(card, Path(settings.data), downloads)
    catalogues = {side: read_catalogue(card, folder, side) for side in ("query", "item")}
    split = make_split(read_clicks(card, folder), catalogues, card, "live")
    trained = fit(split.data, config, cut_ms=split.cut_ms)
    services = {
        name: {f"{view.name}__{field.name}": str(field.dtype)
               for view in service.feature_view_projections for field in view.features}
        for name, service in define(card, Path("/")).services.items()
    }  # fmt: skip
    cut = datetime.fromtimestamp(split.cut_ms / 1000, UTC)
    manifest = Manifest(
        version="measured", dataset=card.name, created=datetime.now(UTC), window=(cut, cut), offsets={},
        config=config, query=trained.query_spec, item=trained.item_spec, services=services, metrics={}, lineage={},
    )  # fmt: skip
    return Bundle(manifest, trained.towers, trained.queries, trained.items)


def scaled_bundle(bundle: Bundle, queries: int, items: int, seed: int = 0) -> Bundle:
    """The bundle with more ids: a new one lies between an old one and one of its neighbours, with a little noise.

    What is mixed is what the towers read (id embedding, augmented vector), so the new vectors are the trained towers'
    own, and an updater that computes them anew finds them where they were.
    """
    rng, manifest = np.random.default_rng(seed), bundle.manifest
    weights, states, known = dict(bundle.towers.weights), {}, len(bundle.items)
    for side, size, state in (("query", queries, bundle.queries), ("item", items, bundle.items)):
        name = f"{side}_tower.ids.weight"
        table = weights.get(name, np.zeros((len(state) + 1, 0), np.float32))
        states[side], grown = _scaled(state, table[1:], size, rng)
        if name in weights:
            weights[name] = np.concatenate([table[:1], grown]).astype(np.float32)
    for name in weights.keys() & BY_ID - {"query_tower.ids.weight", "item_tower.ids.weight"}:
        table = weights[name]  # a copy of an item has the item's
        weights[name] = np.concatenate([table[:1], table[1:][np.arange(items) % known]])
    rings = states["query"].recent_items
    copies = rng.integers(0, max(1, items // known), rings.shape)
    states["query"].columns["recent_items"] = np.where(rings >= 0, rings + copies * known, -1).astype(np.int32)
    towers = Towers.of(weights, manifest.query, manifest.item, manifest.config)
    vectors = {
        "item": lambda rows, moment: item_vectors(towers.item, states["item"], manifest.item, rows, moment),
        "query": lambda rows, moment: towers.query(
            query_inputs(states["query"], manifest.query, manifest.config, rows, moment, items),
            states["query"].a[rows],
        ),
    }
    for side, compute in vectors.items():
        state = states[side]
        made = np.empty((len(state), bundle.items.vectors.shape[1]), np.float32)
        for rows in np.array_split(np.arange(len(state)), max(1, len(state) // _AT_ONCE)):
            made[rows] = compute(rows, np.full(len(rows), manifest.cut_ms))
        state.columns["vectors"], state.columns["as_of"] = made, np.full(len(state), manifest.cut_ms)
    return replace(bundle, towers=towers, queries=states["query"], items=states["item"])


def _scaled(
    state: EntityState, embeddings: Array, size: int, rng: np.random.Generator
) -> tuple[EntityState, Array]:  # fmt: skip
    """A side with more ids, and their embeddings [size, e]."""
    n = len(state)
    base = np.arange(size) % n
    mate = neighbours(np.array(state.vectors), 10)[base, rng.integers(0, 10, size)]
    share = (0.5 * rng.random((size, 1))).astype(np.float32)
    share[:n] = 0  # the first are the old ones, as they were

    def mixed(values: Array, noise: float) -> Array:
        made = (1 - share) * values[base] + share * values[mate]
        made[n:] += (
            noise
            * (values.std() if values.size else 0)
            * rng.normal(size=(max(0, size - n), values.shape[1])).astype(np.float32)
        )
        return made

    ids = [id_ if k < n else f"{id_}~{k // n}" for k, id_ in enumerate(state.ids[row] for row in base.tolist())]
    columns = {name: np.array(column)[base] for name, column in state.columns.items() if name not in ("a", "vectors")}
    return EntityState(ids, **columns, a=mixed(np.array(state.a), 0.05)), mixed(np.array(embeddings), 0.2)


def neighbours(vectors: Array, count: int) -> Array:
    """Each vector's nearest ones [n, count], itself among them."""
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(np.ascontiguousarray(vectors, np.float32))
    return index.search(np.ascontiguousarray(vectors, np.float32), count)[1]
