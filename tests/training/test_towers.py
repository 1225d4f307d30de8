"""The towers' inputs: the latest items' mean by hand, and what training drops."""

import numpy as np
import pytest
import torch

from tests.training.data import CARD, clicks, profiles
from tests.training.test_trainer import CONFIG
from training.towers import Latest
from training.trainer import make_trainer
from training.window import make_examples


def test_the_latest_items_are_averages_that_forget_by_place():
    latest = Latest(items=3, places=3, memories=(0.5, 1.0), width=2)
    with torch.no_grad():
        latest.items.weight.copy_(torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [4.0, 4.0]]))
    averages = latest(torch.tensor([[1, 2, 0], [3, 0, 2], [0, 2, 0], [0, 0, 0]])).detach().numpy()
    # (1·(1,0) + ½·(0,1)) / 1½ and the newest alone; (1·(4,4) + ¼·(0,1)) / 1¼; one; nothing
    right = [[2 / 3, 1 / 3, 1, 0], [3.2, 3.4, 4, 4], [0, 1, 0, 0], [0, 0, 0, 0]]
    np.testing.assert_allclose(averages, right, rtol=1e-6)


def test_an_example_reads_what_its_query_clicked_before_it():
    made = make_examples(clicks(), profiles(), CARD)
    trainer = make_trainer(made.examples, made.query, made.item, made.query_spec, made.item_spec, CONFIG)
    past: dict[int, list[int]] = {}
    for row, (query, item) in enumerate(zip(made.examples.query_rows, made.examples.item_rows[:, 0], strict=True)):
        before = past.setdefault(query, [])[::-1][: CONFIG.latest]
        assert trainer.queries.latest[row, : len(before)].tolist() == [number + 1 for number in before]
        assert not trainer.queries.latest[row, len(before) :].any()
        past[query].append(item)


def test_training_drops_as_large_a_share_as_it_is_told(monkeypatch):
    made = make_examples(clicks(2_000), profiles(), CARD)
    config = CONFIG.model_copy(
        update={"query_id_dropout": 0.7, "latest_dropout": 0.4, "embedding_dropout": 0.25, "batch_size": 2_000}
    )
    trainer = make_trainer(made.examples, made.query, made.item, made.query_spec, made.item_spec, config)
    tower, read = trainer.model.query_tower, []
    whole = tower.forward
    monkeypatch.setattr(tower, "forward", lambda *inputs: read.append(inputs) or whole(*inputs))
    trainer.step(slice(0, 2_000))
    *_, (rows, codes, dense, augmented, latest, scale) = read
    assert (rows == 0).float().mean() == pytest.approx(0.7, abs=0.05)
    given = torch.from_numpy(trainer.queries.latest) > 0
    assert (latest[given] == 0).float().mean() == pytest.approx(0.4, abs=0.05)
    assert not latest[~given].any()
    assert scale.shape == (2_000, tower.embedded)
    assert torch.unique(scale).tolist() == [0.0, pytest.approx(1 / 0.75)]
    assert (scale == 0).float().mean() == pytest.approx(0.25, abs=0.02)
    _, _, _, _, _, *answered = read[0]  # the replay's, which is what the stream will compute
    assert not answered
