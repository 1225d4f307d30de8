"""How the neural rivals are trained: what stands together in a batch."""

import numpy as np
import pytest
import torch
from torch import nn

from evaluation.baselines.neural import Encoder, NeuralRival, RivalConfig
from evaluation.models import build
from tests.tiny import CUT_MS
from tests.training.data import training_set
from training.training_set import TrainingSet

pytestmark = pytest.mark.trains
SIZE = 32


@pytest.fixture(scope="module")
def data() -> TrainingSet:
    return training_set(500)


def batches(data: TrainingSet, of_one_moment: bool) -> list[list[int]]:
    """The numbers of the clicks in each batch of two epochs."""
    seen: list[list[int]] = []

    class Spy(Encoder):
        def __init__(self, *_):
            super().__init__()
            self.of_one_moment = of_one_moment
            self.vector = nn.Parameter(torch.ones(4))

    rival = NeuralRival(Spy, RivalConfig(batch_size=SIZE, epochs=2))
    rival._step = lambda optimiser, numbers, batch, around: seen.append(numbers.tolist())  # type: ignore[method-assign]
    rival.fit(data, CUT_MS)
    return seen


@pytest.mark.parametrize("of_one_moment", [True, False])
def test_every_epoch_is_of_all_clicks_once(data, of_one_moment):
    found = batches(data, of_one_moment)
    epochs = [sum(found[:16], []), sum(found[16:], [])]
    assert [sorted(epoch) for epoch in epochs] == [list(range(500))] * 2
    assert epochs[0] != epochs[1], "in another order each time"


def test_a_batch_of_one_moment_is_of_consecutive_clicks(data):
    for batch in batches(data, True):
        assert batch == list(range(batch[0], batch[0] + len(batch))) and batch[0] % SIZE == 0


def test_a_batch_of_no_moment_is_of_clicks_from_anywhere(data):
    spans = [max(batch) - min(batch) for batch in batches(data, False) if len(batch) == SIZE]
    assert min(spans) > 250


@pytest.mark.parametrize(("name", "matters"), [("fm", True), ("youtube-dnn", False)])
def test_the_logq_correction_counts_around_a_batch_where_it_is_of_one_moment(name, matters, data):
    found = []
    for clicks_around in (2, 4096):
        rival = build(name, batch_size=SIZE, epochs=1, logq_window=clicks_around)
        rival.fit(data, CUT_MS)
        inputs = data.items.inputs(data.item_spec, np.arange(50), np.full(50, CUT_MS))
        found.append(rival.item(inputs, np.empty((50, 0), np.float32)))
    assert np.array_equal(*found) != matters
