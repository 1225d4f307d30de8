"""What a retrained model takes over from the last bundle, and what it must not."""

from dataclasses import replace

import pytest
import torch

from feature_repo.card import Side
from model.settings.model import AMM, DATConfig, TowerConfig
from tests.tiny import TINY, tiny_bundle
from tests.training.data import training_set
from training.dat import DAT
from training.warm_start import warm_start

SHAPE = TowerConfig(embedding_dim=8, hidden=(16,), output_dim=8)


def started(config: DATConfig, old, queries: list[str], items: list[str]):
    """A model of these ids before and after it has been started from a bundle."""
    data = training_set()
    data.queries.ids, data.items.ids = queries, items
    data = replace(data, query_spec=old.manifest.query, item_spec=old.manifest.item)
    torch.manual_seed(5)
    model = DAT(len(queries), len(items), data.query_spec, data.item_spec, config)
    fresh = {name: weight.clone() for name, weight in model.state_dict().items()}
    warm_start(model, data, config, old)
    return model.state_dict(), fresh


def test_a_warm_start_takes_what_it_knows_by_id_and_leaves_new_ids_fresh():
    config = AMM.model_copy(update={"tower": SHAPE})
    old = tiny_bundle("one", queries=4, items=6, config=config)
    before = {name: torch.from_numpy(weight) for name, weight in old.towers.weights.items()}
    torch.nn.init.normal_(before["query_tower.shortcut.weight"])  # it begins as zeros, and would not be missed
    new, fresh = started(config, old, ["q3", "new", "q0"], [f"i{k}" for k in range(7)])
    table, known = new["query_tower.ids.weight"], before["query_tower.ids.weight"]
    assert torch.equal(table[1], known[4]) and torch.equal(table[3], known[1]) and torch.equal(table[0], known[0])
    assert torch.equal(table[2], fresh["query_tower.ids.weight"][2])
    for name in ("item_tower.layers.0.weight", "query_tower.shortcut.weight", "query_tower.dense_std"):
        assert torch.equal(new[name], before[name])
    recent = new["query_tower.recent.items.weight"]
    assert torch.equal(recent[:7], before["query_tower.recent.items.weight"])
    assert recent[7].any(), "the new item keeps its own"


def test_a_warm_start_takes_no_layer_whose_inputs_mean_something_else():
    """A tower without recent items and with two averages more has a first layer as wide."""
    old = tiny_bundle("one", config=AMM.model_copy(update={"tower": SHAPE, "ema_alphas": (0.4, 0.1)}))
    config = AMM.model_copy(update={"tower": SHAPE, "ema_alphas": (0.4, 0.1, 0.02, 0.01), "recent_items": 0})
    new, fresh = started(config, old, old.queries.ids, old.items.ids)
    name = "query_tower.layers.0.weight"
    assert new[name].shape == old.towers.weights[name].shape
    assert torch.equal(new[name], fresh[name]) and not new["query_tower.shortcut.weight"].any()
    torch.testing.assert_close(
        new["query_tower.layers.2.weight"], torch.from_numpy(old.towers.weights["query_tower.layers.2.weight"])
    )


@pytest.mark.parametrize("features", [{}, {"released": TINY.item.features["released"]}], ids=["none", "others"])
def test_a_warm_start_without_a_category_in_common_takes_the_rest(features):
    """A card without categories has a table of them with the padding's row alone."""
    config, card = AMM.model_copy(update={"tower": SHAPE}), TINY.model_copy(update={"item": Side(features=features)})
    old = tiny_bundle("one", card=card, config=config)
    data = training_set(100, card=card)
    model = DAT(len(data.queries), len(data.items), data.query_spec, data.item_spec, config)
    warm_start(model, data, config, old)
    taken = model.state_dict()["item_tower.ids.weight"][data.items.ids.index("i3") + 1]
    assert torch.equal(taken, torch.from_numpy(old.towers.weights["item_tower.ids.weight"][4]))


def test_ids_that_came_after_the_old_window_have_nothing_to_take():
    config = AMM.model_copy(update={"tower": SHAPE})
    old = tiny_bundle("one", queries=4, items=6, config=config)
    old.queries.add(["late"]), old.items.add(["late"])
    new, fresh = started(config, old, ["late", "q0"], ["late", "i0"])
    for name in ("query_tower.ids.weight", "item_tower.ids.weight", "query_tower.recent.items.weight"):
        assert torch.equal(new[name][1], fresh[name][1])
        assert torch.equal(new[name][2], torch.from_numpy(old.towers.weights[name][1]))
