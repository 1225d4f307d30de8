"""Bundles to measure with: a trained model of MovieLens-100K, and the same at any number of queries and items."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import faiss
import numpy as np
import torch

from training.bundle import Bundle, Manifest, SideTable
from training.dat import DAT, represent
from training.features import Inputs, dense
from training.history import newest, tower_rows

Array = np.ndarray


def trained_bundle(downloads: Path, epochs: int = 3) -> Bundle:
    """DAT after a short training on MovieLens-100K, which is fetched if it is not there."""
    from cli.settings import Settings
    from feature_repo.source import dataset_folder, read_clicks, read_profiles
    from feature_repo.views import define
    from training.config import DATConfig
    from training.trainer import fit
    from training.window import make_examples

    settings = Settings(dataset="movielens-100k")
    card, config = settings.card, DATConfig(epochs=epochs)
    folder = dataset_folder(card, Path(settings.data), downloads)
    clicks = read_clicks(card, folder)
    window = make_examples(clicks, {side: read_profiles(card, folder, side) for side in ("query", "item")}, card)
    fitted = fit(window.examples, window.query, window.item, window.query_spec, window.item_spec, config)
    times = window.examples.event_time
    services = {
        name: {f"{view.name}__{field.name}": str(field.dtype)
               for view in service.feature_view_projections for field in view.features}
        for name, service in define(card, Path("/")).services.items()
    }  # fmt: skip
    manifest = Manifest(
        version="measured", dataset=card.name, created=datetime.now(UTC),
        window=(datetime.fromtimestamp(times[0] / 1000, UTC), datetime.fromtimestamp(times[-1] / 1000, UTC)),
        offsets={}, config=config, query=fitted.query_spec, item=fitted.item_spec, services=services, metrics={},
        lineage={},
    )  # fmt: skip
    return Bundle(manifest, fitted.model, fitted.queries, fitted.items)


def scaled_bundle(bundle: Bundle, queries: int, items: int, seed: int = 0) -> Bundle:
    """The bundle with more ids: a new one lies between an old one and one of its neighbours, with a little noise.

    What is mixed is what the towers read (id embedding, augmented vector), so the new vectors are the trained towers'
    own, and an updater that computes them anew finds them where they were.
    """
    rng = np.random.default_rng(seed)
    specs = {"query": bundle.manifest.query, "item": bundle.manifest.item}
    model = DAT(queries, items, *specs.values(), bundle.manifest.config).eval()
    weights = bundle.model.state_dict()
    of_ids = (".ids.weight", ".items.weight")
    model.load_state_dict({name: weights[name] for name in weights if not name.endswith(of_ids)}, strict=False)
    if model.query_tower.latest is not None:  # a copy of an item has the item's
        rows = torch.arange(items) % len(bundle.items.ids) + 1
        with torch.no_grad():
            table = bundle.model.query_tower.latest.items.weight
            model.query_tower.latest.items.weight.copy_(torch.cat([table[:1], table[rows]]))
    tables = {}
    for side, size, table in (("query", queries, bundle.queries), ("item", items, bundle.items)):
        old, new = getattr(bundle.model, f"{side}_tower"), getattr(model, f"{side}_tower")
        tables[side] = _scaled(table, size, len(bundle.items.ids), items, old, new, specs[side], bundle, rng)
    return replace(bundle, model=model, queries=tables["query"], items=tables["item"])


def _scaled(
    table: SideTable, size: int, items_before: int, items: int, old, new, spec, bundle: Bundle, rng: np.random.Generator
) -> SideTable:
    n = len(table.ids)
    base = np.arange(size) % n
    mate = neighbours(table.vectors, 10)[base, rng.integers(0, 10, size)]
    share = (0.5 * rng.random((size, 1))).astype(np.float32)
    share[:n] = 0  # the first are the old ones, as they were

    def mixed(values: Array, noise: float) -> Array:
        values = values.reshape(n, -1)
        made = (1 - share) * values[base] + share * values[mate]
        made[n:] += noise * values.std() * rng.normal(size=(max(0, size - n), values.shape[1])).astype(np.float32)
        return made

    with torch.no_grad():
        ids = old.ids.weight.detach().numpy()
        new.ids.weight.copy_(torch.from_numpy(np.concatenate([ids[:1], mixed(ids[1:], 0.2)])))
    a = mixed(table.a, 0.05).reshape(size, *table.a.shape[1:])
    history = table.history[base]
    if history.shape[1]:  # of the copies of an item, one
        copies = rng.integers(0, max(1, items // items_before), history.shape)
        history = np.where(history >= 0, history + copies * items_before, -1).astype(np.int32)
    grown = SideTable(
        ids=[id_ if k < n else f"{id_}~{k // n}" for k, id_ in enumerate(table.ids[row] for row in base.tolist())],
        codes=table.codes[base], numbers=table.numbers[base], times=table.times[base], a=a, folded=table.folded[base],
        clicks=table.clicks[base], counters=table.counters[base], last_click=table.last_click[base], history=history,
        vectors=np.empty((size, table.vectors.shape[1]), np.float32),
    )  # fmt: skip
    as_of = np.full(size, bundle.manifest.cut_ms, np.int64)
    fast = dense(spec, grown.profile, grown.counters, grown.clicks, grown.last_click, as_of)
    latest = None
    if new.latest is not None:
        latest = tower_rows(newest(history, grown.clicks, bundle.manifest.config.latest), items)
    inputs = Inputs(np.arange(size) + 1, grown.codes, fast, latest)
    for at in range(0, size, 1 << 16):
        part = slice(at, at + (1 << 16))
        grown.vectors[part] = represent(new, inputs.take(part), a[part])
    return grown


def neighbours(vectors: Array, count: int) -> Array:
    """Each vector's nearest ones [n, count], itself among them."""
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(np.ascontiguousarray(vectors, np.float32))
    return index.search(np.ascontiguousarray(vectors, np.float32), count)[1]
