"""A made-up system of any size: a bundle without training, and clicks. For crash runs and for measurements."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from feature_repo.card import Clicks, DatasetCard
from feature_repo.click_event import Click
from training.bundle import Bundle, Manifest, SideTable
from training.config import DATConfig
from training.features import InputSpec

Array = np.ndarray
CUT_MS = 1_700_000_000_000
CARD = DatasetCard(
    name="made-up", title="Made-up clicks", history=20, clicks=Clicks(path="-", query="query", item="item", time="time")
)


def made_up_bundle(
    queries: int | list[str],
    items: int | list[str],
    seed: int = 0,
    config: DATConfig | None = None,
    frozen: bool = True,
) -> Bundle:
    """An untrained bundle of queries and items none of which has been clicked yet.

    Args:
        queries, items: Their ids, or how many: q0…, i0….
        frozen: Make p_v depend on nothing that a click changes, so that a_u has one right answer in whichever order
            the two stages run.
    """
    import torch

    from training.dat import DAT, represent
    from training.features import Inputs

    torch.manual_seed(seed)
    config = config or DATConfig()
    names = [
        [f"{letter}{k}" for k in range(ids)] if isinstance(ids, int) else ids
        for letter, ids in (("q", queries), ("i", items))
    ]
    specs = [
        InputSpec(categories=[], numbers=[], times=[], half_lives_ms=side.half_lives_ms)
        for side in (CARD.query, CARD.item)
    ]
    model = DAT(*map(len, names), *specs, config).eval()
    if frozen:
        tower, augmented = model.item_tower, len(config.memories_of("item")) * config.tower.output_dim
        with torch.no_grad():
            tower.layers[0].weight[:, -(specs[1].dense_width + augmented) :] = 0
    tables = []
    for ids, length, spec, tower in zip(
        names, (CARD.history, 0), specs, (model.query_tower, model.item_tower), strict=True
    ):
        n, memories = len(ids), config.memories_of("query" if tower is model.query_tower else "item")
        a = np.zeros((n, len(memories), config.tower.output_dim), np.float32)
        zeros, codes = np.zeros(n, np.int64), np.zeros((n, 0), np.int32)
        latest = np.zeros((n, config.latest), np.int64) if tower.latest is not None else None
        inputs = Inputs(np.arange(1, n + 1), codes, np.zeros((n, spec.dense_width), np.float32), latest)
        tables.append(
            SideTable(
                ids=ids, codes=codes, numbers=np.zeros((n, 0), np.float32),
                times=np.zeros((n, 0), np.int64), a=a, folded=zeros, clicks=zeros.copy(),
                counters=np.zeros((n, len(spec.half_lives_ms)), np.float32), last_click=zeros.copy(),
                history=np.full((n, length), -1, np.int32),
                vectors=represent(tower, inputs, a),
            )
        )  # fmt: skip
    cut = datetime.fromtimestamp(CUT_MS / 1000, UTC)
    manifest = Manifest(
        version=f"made-up-{seed}", dataset=CARD.name, created=datetime.now(UTC), window=(cut, cut), offsets={},
        config=config, query=specs[0], item=specs[1], services={}, metrics={}, lineage={},
    )  # fmt: skip
    return Bundle(manifest, model, *tables)


def made_up_home(home: Path, bundle: Bundle) -> None:
    """Publish the bundle in a home folder and register its feature views: what ``dat updater`` starts from."""
    from feature_repo.store import open_store, register
    from training.bundle import Shelf

    register(open_store(home), CARD, home)
    Shelf(home / "bundles").publish(bundle)


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


def one_thread(bundle: Bundle, clicks: list[Click]) -> dict[str, Array]:
    """a_u of every query that clicked, folded one click at a time with the bundle's item vectors."""
    vectors = dict(zip(bundle.items.ids, bundle.items.vectors, strict=True))
    memories = np.array(bundle.manifest.config.memories, np.float64)[:, None]
    a: dict[str, Array] = {}
    n: dict[str, int] = {}
    shape = bundle.queries.a.shape[1:]
    for click in clicks:
        count = n.get(click.query_id, 0)
        before = a.get(click.query_id)
        before = np.zeros(shape) if before is None else before
        a[click.query_id] = before + np.maximum(memories, 1 / (count + 1)) * (vectors[click.item_id] - before)
        n[click.query_id] = count + 1
    return a
