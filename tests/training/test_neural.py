"""How the neural rivals are trained: what stands together in a batch."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from tests.training.data import CARD, clicks, profiles
from training.models import build
from training.neural import Encoder, NeuralRival, RivalConfig
from training.window import make_examples

SIZE = 32


@pytest.fixture(scope="module")
def window():
    return make_examples(clicks(500), profiles(), CARD)


def batches(window, of_one_moment: bool) -> list[list[int]]:
    """Fits a rival for two epochs; the numbers of the clicks in each batch, as the network saw them."""
    width, seen = window.examples.candidates, []

    class Spy(Encoder):
        def __init__(self, window, config):
            super().__init__()
            self.of_one_moment = of_one_moment
            self.vector = nn.Parameter(torch.ones(4))

        def queries(self, inputs, history):
            return self.vector.expand(len(inputs), 1, 4)

        def items(self, inputs):
            seen.append(inputs.dense[::width, 0].astype(int).tolist())
            return self.vector.expand(len(inputs), 4)

    window.examples.item.dense[:, 0] = np.repeat(np.arange(len(window.examples)), width)
    NeuralRival(Spy, RivalConfig(batch_size=SIZE, epochs=2)).fit(window)
    return seen


@pytest.mark.parametrize("of_one_moment", [True, False])
def test_every_epoch_is_of_all_clicks_once(window, of_one_moment):
    found = batches(window, of_one_moment)
    epochs = [sum(found[:16], []), sum(found[16:], [])]
    assert [sorted(epoch) for epoch in epochs] == [list(range(500))] * 2
    assert epochs[0] != epochs[1], "in another order each time"


def test_a_batch_of_one_moment_is_of_consecutive_clicks(window):
    for batch in batches(window, True):
        assert batch == list(range(batch[0], batch[0] + len(batch))) and batch[0] % SIZE == 0


@pytest.mark.parametrize(("name", "matters"), [("fm", True), ("youtube-dnn", False)])
def test_the_logq_correction_counts_around_a_batch_where_it_is_of_one_moment(name, matters, window):
    found = []
    for clicks_around in (2, 4096):
        rival = build(name, batch_size=SIZE, epochs=1, frequency_window=clicks_around)
        rival.fit(window)
        found.append(rival.item_vectors(window.examples.item.take(np.arange(50))))
    assert np.array_equal(*found) != matters


def test_a_batch_of_no_moment_is_of_clicks_from_anywhere(window):
    spans = [max(batch) - min(batch) for batch in batches(window, False) if len(batch) == SIZE]
    assert min(spans) > 250


def test_a_rival_learns_from_nothing_but_what_the_night_knew(window):
    """No history, and no item that an answer could hold: not a number of the network moves."""
    histories = []

    class Spy(Encoder):
        def __init__(self, window, config):
            super().__init__()
            self.vectors = nn.Parameter(torch.eye(4))

        def queries(self, inputs, history):
            histories.append(history)
            return self.vectors[:1].expand(len(inputs), 1, 4)

        def items(self, inputs):
            return self.vectors[torch.arange(len(inputs)) % 4]

    for nights, learns in ((np.zeros(500, np.int64), False), (None, True)):
        histories.clear()
        examples = replace(window.examples, nights=nights)
        rival = NeuralRival(Spy, RivalConfig(batch_size=SIZE, epochs=1))
        rival.fit(replace(window, examples=examples))
        assert torch.equal(rival.encoder.vectors, torch.eye(4)) is not learns
        assert any(history.any() for history in histories) is learns
