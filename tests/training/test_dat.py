"""The towers that are trained, and the NumPy ones that are shipped, are one function."""

import numpy as np
import pytest
import torch

from model.features import Inputs
from model.settings.model import AMM, PAPER, TowerConfig
from model.towers import Towers
from tests.training.data import training_set
from training.dat import DAT, TorchTowers

SHAPE = TowerConfig(embedding_dim=4, hidden=(16, 12), output_dim=8)
CONFIGS = {
    "default": AMM.model_copy(update={"tower": SHAPE}),
    "no recent items": AMM.model_copy(update={"tower": SHAPE, "recent_items": 0}),
    "two-tower": AMM.model_copy(update={"tower": SHAPE, "ema_alphas": ()}),
    "paper": PAPER.model_copy(update={"tower": SHAPE}),
    "paper, linear head": PAPER.model_copy(
        update={"tower": SHAPE, "paper": PAPER.paper.model_copy(update={"relu_head": False})}
    ),
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_the_numpy_towers_are_the_torch_towers(config):
    data = training_set()
    torch.manual_seed(0)
    model = DAT(len(data.queries), len(data.items), data.query_spec, data.item_spec, config)
    for name, weights in model.named_parameters():
        if not name.endswith(("ids.weight", "features.weight", "items.weight")):
            torch.nn.init.normal_(weights, std=0.5)  # some begin as zeros, and would not be missed
    shipped, trained = Towers.of(model.weights(), data.query_spec, data.item_spec, config), TorchTowers(model, config)
    rng = np.random.default_rng(0)
    queries, items = data.at_cut
    for name, state, spec in (("query", queries, data.query_spec), ("item", items, data.item_spec)):
        rows = rng.integers(-1, len(state), 50)
        inputs = state.inputs(spec, np.abs(rows), np.full(50, int(data.clicks.times[-1])))
        recent = None
        if name == "query" and config.history:
            recent = rng.integers(0, len(items) + 1, (50, config.history)) * (rng.random((50, 1)) < 0.9)
        inputs = Inputs(state.embedding_rows(rows), inputs.codes, inputs.dense, recent)
        a = rng.normal(size=(50, config.query_state_dim)).astype(np.float32)
        np.testing.assert_allclose(getattr(shipped, name)(inputs, a), getattr(trained, name)(inputs, a), atol=2e-6)
