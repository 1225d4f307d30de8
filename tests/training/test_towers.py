"""The towers' inputs: the recent items' averages by hand, and what training drops."""

import numpy as np
import pytest
import torch

from tests.training.data import CONFIG, training_set
from training.block import Block
from training.seen_mask import SeenMask
from training.towers import RecentItems, Scale
from training.trainer import Trainer


def test_recent_items_are_averages_that_forget_by_place():
    recent = RecentItems(items=3, length=3, alphas=(0.5, 1.0), width=2)
    with torch.no_grad():
        recent.items.weight.copy_(torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [4.0, 4.0]]))
    averages = recent(torch.tensor([[1, 2, 0], [3, 0, 2], [0, 2, 0], [0, 0, 0]])).detach().numpy()
    # (1·(1,0) + ½·(0,1)) / 1½ and the newest alone; (1·(4,4) + ¼·(0,1)) / 1¼; one; nothing
    right = [[2 / 3, 1 / 3, 1, 0], [3.2, 3.4, 4, 4], [0, 1, 0, 0], [0, 0, 0, 0]]
    np.testing.assert_allclose(averages, right, rtol=1e-6)


def test_training_drops_as_large_a_share_as_it_is_told(monkeypatch):
    data = training_set(2_000)
    config = CONFIG.model_copy(
        update={"query_id_dropout": 0.7, "recent_dropout": 0.4, "embedding_dropout": 0.25, "batch_size": 1_000}
    )
    trainer = Trainer(data, config)
    observed = trainer.replay.observe(data.clicks[:1_000], trainer.towers)
    trainer.replay.advance(data.clicks[:1_000], observed, trainer.towers)
    query, a_u = trainer.replay.observe(data.clicks[1_000:], trainer.towers).before()
    tower, read = trainer.model.query_tower, []
    whole = tower.forward
    monkeypatch.setattr(tower, "forward", lambda *inputs: read.append(inputs) or whole(*inputs))
    last = Block(0, data.clicks, data.negatives).part(slice(1_000, 2_000))
    trainer.frequency.read(data.clicks.items)
    seen = SeenMask(trainer.replay.observe(last.clicks, trainer.towers).fold, data.excludes_seen)
    trainer.step(last, slice(0, 1_000), query, a_u, seen)
    trainer.towers.query(query, a_u)
    (rows, _, _, _, recent, scale), (_, _, _, _, replayed, *rest) = read
    assert (rows == 0).float().mean() == pytest.approx(0.7, abs=0.05)
    given = torch.from_numpy(query.recent) > 0
    assert (recent[given] == 0).float().mean() == pytest.approx(0.4, abs=0.03)
    assert not recent[~given].any()
    assert scale.shape == (1_000, tower.embedded)
    assert torch.unique(scale).tolist() == [0.0, pytest.approx(1 / 0.75)]
    assert (scale == 0).float().mean() == pytest.approx(0.25, abs=0.02)
    assert torch.equal(replayed, torch.from_numpy(query.recent)) and not rest, "what the stream computes drops nothing"


def test_a_scale_is_that_of_all_blocks_and_what_never_changed_is_not_blown_up():
    dense = np.random.default_rng(0).normal(3, 2, (500, 2)).astype(np.float32)
    dense[:, 1] = 7
    mean, std = Scale().add(dense[:100]).add(dense[100:]).mean_and_std()
    np.testing.assert_allclose(mean, dense.mean(0), rtol=1e-5)
    np.testing.assert_allclose(std, [dense[:, 0].std(), 1], rtol=1e-5)


def test_the_scales_are_those_of_what_the_steps_read(monkeypatch):
    """Learnt from larger blocks than a batch, the items' counters would be of long before, and on a small log 0."""
    data = training_set()
    trainer = Trainer(data, CONFIG)
    query, item = Scale(), Scale()

    def step(block, rows, inputs, a_u, seen):
        query.add(inputs.dense)
        batch = block.part(rows)
        candidates = np.r_[batch.clicks.items, batch.negatives.ravel()]
        item.add(trainer.replay.item_inputs(candidates[candidates >= 0], block.time)[0].dense)
        return [0.0] * 5

    monkeypatch.setattr(trainer, "step", step)
    trainer.epoch()
    for scale, tower in ((query, trainer.model.query_tower), (item, trainer.model.item_tower)):
        mean, std = scale.mean_and_std()
        np.testing.assert_allclose(tower.dense_mean, mean, rtol=1e-5)
        np.testing.assert_allclose(tower.dense_std, std, rtol=1e-4)
