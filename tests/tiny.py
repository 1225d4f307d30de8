"""A tiny dataset, an untrained bundle of it and its Feast store: real parts, small enough to check by eye."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from feature_repo.card import Clicks, DatasetCard, Field_, Side
from model.bundle import Bundle, Manifest
from model.counters import count
from model.features import InputSpec, encode, fit
from model.folds import query_inputs
from model.scan import Groups
from model.settings.model import AMM, NO_CLOSED_FORM, DATConfig, MemoryConfig, TowerConfig
from model.state import EntityState
from model.towers import Towers
from training.dat import DAT
from training.memory import MemoryDAT

CUT_MS = 1_700_000_000_000
GENRES = ("drama", "comedy", "war")
CITIES = ("Lyon", "Oslo")
SMALL = DATConfig(memory=MemoryConfig(dim=8, rates=(0.4, 0.1), second=8, hidden=16), closed_form=NO_CLOSED_FORM)
WIDTH = 32  # numbers in an item's vector, of SMALL
SMALL_AMM = AMM.model_copy(update={"tower": TowerConfig(embedding_dim=4, hidden=(16,), output_dim=8)})

TINY = DatasetCard(
    name="tiny",
    title="A handful of made-up queries and items",
    clicks=Clicks(path="clicks.csv", query="user", item="film", time="at"),
    history=4,
    query=Side(
        features={"city": Field_(column="city", kind="category"), "age": Field_(column="age", kind="number")},
        half_lives=["1h", "24h"],
    ),
    item=Side(
        features={
            "title": Field_(column="title", kind="text"),
            "genres": Field_(column="genres", kind="categories"),
            "released": Field_(column="released", kind="time"),
        },
        half_lives=["10m", "1h", "24h"],
        category="genres",
    ),
)


def query_profiles(count_: int) -> dict[str, list]:
    """Profile columns of the queries q0, q1, …"""
    return {
        "id": [f"q{k}" for k in range(count_)],
        "city": [CITIES[k % len(CITIES)] for k in range(count_)],
        "age": [20.0 + k for k in range(count_)],
    }


def item_profiles(count_: int) -> dict[str, list]:
    """Profile columns of the items i0, i1, …"""
    return {
        "id": [f"i{k}" for k in range(count_)],
        "title": [f"Film {k}" for k in range(count_)],
        "genres": [[GENRES[k % 3], GENRES[(k + 1) % 3]] for k in range(count_)],
        "released": [CUT_MS - 86_400_000 * (k + 1) for k in range(count_)],
    }


def _state(tower, spec: InputSpec, config: DATConfig, columns: dict[str, list], history: int, rng) -> EntityState:
    """State at the cut: every other id has three clicks in the hour before it and a random augmented vector."""
    n = len(columns["id"])
    profile = encode(spec, columns, n)
    active = np.arange(n) % 2 == 0
    key = np.repeat(np.flatnonzero(active), 3)
    times = CUT_MS - rng.integers(1, 3_600_000, len(key))
    none = np.zeros((n, len(spec.half_lives_ms))), np.zeros(n, np.int64)
    counters, last_click = count(Groups.of(key, n), *none, times, spec.half_lives_ms).after()
    clicks = np.where(active, 3, 0).astype(np.int64)
    width = config.query_state_dim if history else config.item_state_dim
    a = rng.normal(size=(n, width)) * active[:, None] / np.sqrt(8)
    ring = np.full((n, history), -1, np.int32)
    ring[active, :3] = rng.integers(0, 4, (int(active.sum()), 3)) if history else 0
    state = EntityState(
        columns["id"], codes=profile.codes, numbers=profile.numbers, times=profile.times, a=a.astype(np.float32),
        update_count=clicks.copy(), clicks=clicks, counters=counters, last_click=last_click, recent_items=ring,
        as_of=np.full(n, CUT_MS),
    )  # fmt: skip
    rows = np.arange(n)
    inputs = (
        query_inputs(state, spec, config, rows, state.as_of, n) if history else state.inputs(spec, rows, state.as_of)
    )
    state.columns["vectors"] = tower(inputs, state.a)
    return state


def tiny_bundle(
    version: str = "tiny-1",
    queries: int = 6,
    items: int = 9,
    *,
    offsets: dict[int, int] | None = None,
    frozen_items: bool = False,
    card: DatasetCard = TINY,
    config: DATConfig | None = None,
    services: dict[str, dict[str, str]] | None = None,
    seed: int = 0,
) -> Bundle:
    """An untrained bundle of the queries q0… and the items i0….

    Args:
        offsets: Its cut in Kafka.
        frozen_items: Of the preset ``amm``: make p_v depend on nothing that a click changes (activity, age, a_v), so
            that a_u has one right answer whatever the order in which the two stages run.
        services: The feature services that the manifest records; by default, those that the card defines.
    """
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    config = config or SMALL
    query_columns, item_columns = query_profiles(queries), item_profiles(items)
    query_spec, item_spec = fit(card.query, query_columns), fit(card.item, item_columns)
    model: DAT | MemoryDAT
    if config.preset == "memories":
        model = MemoryDAT(items, query_spec, item_spec, config)
    else:
        model = DAT(queries, items, query_spec, item_spec, config)
        if frozen_items:
            moving = item_spec.dense_width + config.item_state_dim
            with torch.no_grad():
                model.item_tower.layers[0].weight[:, -moving:] = 0
    towers = Towers.of(model.weights(), query_spec, item_spec, config)
    manifest = Manifest(
        version=version, dataset=card.name, created=datetime.now(UTC),
        window=(datetime.fromtimestamp(CUT_MS / 1000 - 864_000, UTC), datetime.fromtimestamp(CUT_MS / 1000, UTC)),
        offsets=offsets or {}, config=config, query=query_spec, item=item_spec,
        services=card_services(card) if services is None else services, metrics={}, lineage={},
    )  # fmt: skip
    return Bundle(
        manifest,
        towers,
        _state(towers.query, query_spec, config, query_columns, card.history, rng),
        _state(towers.item, item_spec, config, item_columns, 0, rng),
    )


def card_services(card: DatasetCard) -> dict[str, dict[str, str]]:
    """Feature service → {feature: type}, as the card defines them."""
    from feature_repo.views import define

    services = define(card, Path("/")).services
    return {
        name: {
            f"{view.name}__{field.name}": str(field.dtype)
            for view in service.feature_view_projections
            for field in view.features
        }
        for name, service in services.items()
    }


def tiny_store(home: Path, queries: int = 6, items: int = 9, card: DatasetCard = TINY):
    """A Feast store under ``home`` with the card's definitions, and the profiles of all ids online."""
    from feature_repo.store import open_store, register

    store = open_store(home)
    register(store, card, home)
    for side, columns in (("query", query_profiles(queries)), ("item", item_profiles(items))):
        frame = pd.DataFrame(columns).rename(columns={"id": f"{side}_id"})
        frame["known"] = 1
        frame["event_timestamp"] = frame["created_timestamp"] = pd.Timestamp(CUT_MS, unit="ms", tz="UTC")
        store.write_to_online_store(f"{side}_profile", frame)
    return store
