"""A made-up system of any size: a bundle without training, and clicks. For crash runs and for measurements."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from feature_repo.card import Clicks, DatasetCard
from model.bundle import Bundle, Manifest
from model.click import Click
from model.features import InputSpec
from model.folds import gap_of, item_vectors, query_inputs
from model.scan import Groups
from model.settings.model import NO_CLOSED_FORM, DATConfig
from model.state import EntityState
from model.towers import Towers

Array = np.ndarray
CUT_MS = 1_700_000_000_000
CARD = DatasetCard(
    name="made-up", title="Made-up clicks", history=20, clicks=Clicks(path="-", query="query", item="item", time="time")
)


def made_up_bundle(
    queries: int | list[str], items: int | list[str], seed: int = 0, config: DATConfig | None = None,
    frozen: bool = True,
) -> Bundle:  # fmt: skip
    """An untrained bundle of queries and items none of which has been clicked yet.

    Args:
        queries, items: Their ids, or how many: q0…, i0….
        frozen: For the preset ``amm``: make p_v depend on nothing that a click changes, so that a_u has one right
            answer in whichever order the two stages run.
    """
    import torch

    from training.dat import DAT
    from training.memory import MemoryDAT

    torch.manual_seed(seed)
    config = config or DATConfig(closed_form=NO_CLOSED_FORM)
    query_ids, item_ids = (
        [f"{letter}{k}" for k in range(ids)] if isinstance(ids, int) else ids
        for letter, ids in (("q", queries), ("i", items))
    )
    query, item = (
        InputSpec(categories=[], numbers=[], times=[], half_lives_ms=side.half_lives_ms)
        for side in (CARD.query, CARD.item)
    )
    if config.preset == "memories":
        model: DAT | MemoryDAT = MemoryDAT(len(item_ids), query, item, config)
    else:
        model = DAT(len(query_ids), len(item_ids), query, item, config)
        if frozen:
            moving = item.dense_width + config.item_state_dim
            with torch.no_grad():
                for layer in (model.item_tower.layers[0], model.item_tower.shortcut):
                    if isinstance(layer, torch.nn.Linear):
                        layer.weight[:, -moving:] = 0
    towers = Towers.of(model.weights(), query, item, config)
    queries_, items_ = (
        EntityState(
            ids,
            a=np.zeros((len(ids), width), np.float32),
            counters=np.zeros((len(ids), len(spec.half_lives_ms)), np.float32),
            recent_items=np.full((len(ids), length), -1, np.int32),
            as_of=np.full(len(ids), CUT_MS),
        )
        for ids, spec, length, width in (
            (query_ids, query, CARD.history, config.query_state_dim),
            (item_ids, item, 0, config.item_state_dim),
        )
    )
    states, rows = (queries_, items_), np.arange(len(queries_))
    inputs = query_inputs(queries_, query, config, rows, queries_.as_of, len(items_))
    queries_.columns["vectors"] = towers.query(inputs, queries_.a)
    items_.columns["vectors"] = item_vectors(towers.item, items_, item, np.arange(len(items_)), items_.as_of)
    cut = datetime.fromtimestamp(CUT_MS / 1000, UTC)
    manifest = Manifest(
        version=f"made-up-{seed}", dataset=CARD.name, created=datetime.now(UTC), window=(cut, cut), offsets={},
        config=config, query=query, item=item, services={}, metrics={}, lineage={},
    )  # fmt: skip
    return Bundle(manifest, towers, *states)


def made_up_home(home: Path, bundle: Bundle) -> None:
    """Publish the bundle in a home folder and register its feature views: what ``dat updater`` starts from."""
    from feature_repo.store import open_store, register
    from model.bundle_store import BundleStore

    register(open_store(home), CARD, home)
    BundleStore(home / "bundles").publish(bundle)


def made_up_clicks(count: int, queries: int, items: int, seed: int = 0, new_queries: float = 0.05) -> list[Click]:
    """Clicks in order of time, ten milliseconds apart; few queries and items have most of them, as it is in life.

    Args:
        new_queries: Share of the queries that the bundle does not know.
    """
    rng = np.random.default_rng(seed)
    everyone = int(queries * (1 + new_queries))
    who = (everyone * rng.random(count) ** 2).astype(int)
    what = (items * rng.random(count) ** 3).astype(int)
    who = rng.permutation(everyone)[who]
    return [
        Click(event_id=f"{seed}-{k}", query_id=f"q{q}", item_id=f"i{i}", event_time=CUT_MS + 10 * k)
        for k, (q, i) in enumerate(zip(who.tolist(), what.tolist(), strict=True))
    ]


def one_thread(bundle: Bundle, clicks: Sequence[Click]) -> dict[str, Array]:
    """a_u of every query that clicked, folded one click at a time with what the bundle reads of its items."""
    config, towers, items = bundle.manifest.config, bundle.towers, bundle.items
    inputs = items.inputs(bundle.manifest.item, np.arange(len(items)), items.as_of)
    readings = dict(zip(items.ids, towers.read(inputs, items.a), strict=True))
    one, nothing = Groups.of(np.zeros(1, np.int64), 1), np.zeros((1, config.query_state_dim), np.float32)
    a: dict[str, Array] = {}
    count: dict[str, int] = {}
    last: dict[str, int] = {}
    for click in clicks:
        who, folded = click.query_id, np.array([count.get(click.query_id, 0)])
        gap = gap_of(config, np.array([last.get(who, 0)]), np.array([click.event_time]))
        a[who] = towers.memory.fold(one, a.get(who, nothing), folded, readings[click.item_id][None], gap).after()
        count[who], last[who] = int(folded[0]) + 1, max(last.get(who, 0), click.event_time)
    return {query: value[0] for query, value in a.items()}
