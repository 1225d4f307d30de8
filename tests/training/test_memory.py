"""Learned memories: what is trained is what is folded, and nothing is known before it happened."""

import numpy as np
import pyarrow as pa
import pytest
import torch

from model.memory import LearnedMemory, gap_inputs
from model.scan import Groups
from model.settings.model import ClosedFormConfig
from model.towers import Towers
from tests.tiny import CUT_MS
from tests.training.data import MEMORIES, log, pair_of_a_moment, training_set
from training.closed_form import closed_form, item_weights
from training.fit import fit
from training.memory import AffineScan, Steps
from training.memory_trainer import QUIET, MemoryTrainer
from training.training_set import TrainingSet

VARIANTS = {
    "two layers": {},
    "one layer": {"second": 0},
    "fixed rates": {"learned": False},
    "last item": {"rates": (1.0, 0.4)},
    "no item memory": {"item_rates": ()},
    "no gaps": {"gaps": False},
}


def config(**memory):
    return MEMORIES.model_copy(update={"memory": MEMORIES.memory.model_copy(update={"dropout": 0.0} | memory)})


def shaken(trainer: MemoryTrainer) -> MemoryTrainer:
    """Random weights: some begin as zeros or copies, and would not be missed."""
    generator = torch.Generator().manual_seed(3)
    for name, weight in trainer.model.named_parameters():
        if not name.endswith(("ids.weight", "features.weight")):
            torch.nn.init.normal_(weight, std=0.4, generator=generator)
    return trainer


def test_the_scan_has_the_gradient_of_the_recurrence():
    torch.manual_seed(0)
    steps = Steps.of(np.array([4, 2, 2, 1]))
    assert steps.counts == [4, 3, 1, 1]
    keep, add, start = (torch.rand(size, 3, dtype=torch.double, requires_grad=True) for size in (9, 9, 4))
    assert torch.autograd.gradcheck(lambda *given: AffineScan.apply(*given, steps.counts), (keep, add, start))


def test_clicks_by_steps_are_the_sequences_one_after_the_other():
    """Sequence 1 (0.5, 0.25 …) by hand, and padded and back."""
    steps, keep = Steps.of(np.array([3, 2])), torch.full((5, 1), 0.5)
    states = AffineScan.apply(
        keep, torch.tensor([[1.0], [10], [2], [20], [3]]), torch.tensor([[4.0], [8]]), steps.counts
    )
    assert states[:, 0].tolist() == [3.0, 14.0, 3.5, 27.0, 4.75]
    assert steps.place(np.array([0, 1, 0]), np.array([2, 1, 0])).tolist() == [4, 3, 0]
    assert steps.padded(states)[:, :, 0].tolist() == [[3.0, 14.0], [3.5, 27.0], [4.75, 0.0]]
    assert torch.equal(steps.packed(steps.padded(states)), states)


@pytest.mark.trains
@pytest.mark.parametrize("moments", [None, 40], ids=["times of their own", "times that are shared"])
@pytest.mark.parametrize("memory", VARIANTS.values(), ids=VARIANTS)
def test_the_step_of_training_reads_what_the_fold_of_stream_and_answer_gives(memory, moments, monkeypatch):
    """The vectors of a training step equal those of the NumPy replay that day and evaluation run, click by click."""
    data = training_set(300, moments=moments)
    trainer = shaken(MemoryTrainer(data, config(**memory).model_copy(update={"item_id_dropout": 0.0})))
    monkeypatch.setattr(trainer.optimiser, "step", lambda loss: None)
    read, query = [], trainer._query

    def spy(state, inputs, dropout):
        vectors = query(state, inputs, QUIET)
        read.append(vectors.detach().numpy())
        return vectors

    monkeypatch.setattr(trainer, "_query", spy)
    trainer.epoch()
    trained, signals = np.concatenate(read[0::2]), np.concatenate(read[1::2])
    towers = trainer.numpy_towers()
    replay = super(MemoryTrainer, trainer).restart()
    folded, told = [], []
    for rows in data.clicks.blocks(trainer.config.batch_size):
        observed = replay.observe(data.clicks[rows], towers)
        folded.append(towers.query(*observed.before()))
        told.append(towers.query(*observed.fold.before()))
        replay.advance(data.clicks[rows], observed, towers)
    np.testing.assert_allclose(trained, np.concatenate(folded), atol=3e-4)
    np.testing.assert_allclose(signals, np.concatenate(told), atol=3e-4)
    assert trainer.base_at.max() > 0, "some queries have more clicks than the gradient's span"
    np.testing.assert_allclose(trainer.replay.items.a, replay.items.a, atol=3e-4)
    rows = np.arange(len(data.items))
    inputs, a_v = replay.item_inputs(rows, CUT_MS)
    with torch.no_grad():
        p_v = trainer.model.item_tower(
            torch.from_numpy(rows + 1), torch.from_numpy(inputs.codes).long(), torch.from_numpy(inputs.dense),
            torch.from_numpy(a_v),
        )  # fmt: skip
    np.testing.assert_allclose(trainer.config.temperature * towers.item(inputs, a_v), p_v.numpy(), atol=1e-4)


def predictions(window: pa.Table, monkeypatch) -> tuple[TrainingSet, np.ndarray]:
    """What the clicks of a window are predicted from in an epoch of random weights that do not learn."""
    data = training_set(window=window)
    trainer = shaken(MemoryTrainer(data, config()))
    for tower in (trainer.model.query_tower, trainer.model.item_tower):
        tower.dense_mean.zero_(), tower.dense_std.fill_(1)  # scales are learnt of all clicks
    trainer.hidden[:] = 0
    vectors, query = [], trainer._query
    monkeypatch.setattr(trainer.optimiser, "step", lambda loss: None)
    monkeypatch.setattr(trainer, "_query", lambda *given: vectors.append(query(*given)) or vectors[-1])
    trainer.epoch()
    return data, torch.cat(vectors[0::2]).detach().numpy()


@pytest.mark.trains
@pytest.mark.parametrize("changed", ["query_id", "item_id"])
@pytest.mark.parametrize("moments", [None, 60], ids=["times of their own", "times that are shared"])
def test_no_click_changes_what_a_click_of_its_moment_or_an_earlier_one_is_predicted_from(moments, changed, monkeypatch):
    window, at = log(moments=moments), 400
    other = window[changed].to_pylist()
    if moments is not None:
        at, then = pair_of_a_moment(window, at)
        if changed == "query_id":
            at = next(k for k in range(at - 1, 0, -1) if other[k] != other[then])
        other[at] = other[then] if changed == "query_id" else "i1"
    else:
        other[at] = next(name for name in other if name != other[at])
    data, first = predictions(window, monkeypatch)
    _, second = predictions(
        window.set_column(window.column_names.index(changed), changed, pa.array(other)), monkeypatch
    )
    times = data.clicks.times
    until = np.flatnonzero(times <= times[at])
    until = np.setdiff1d(until, at if changed == "query_id" else [])
    np.testing.assert_allclose(first[until], second[until], atol=1e-5)
    assert not np.allclose(first, second, atol=1e-3), "later ones do read it"


def test_a_late_click_has_no_gap_and_a_first_one_says_so():
    gap = gap_inputs(np.array([0, 1_000, 9_000, 1]), np.array([5_000, 701_000, 4_000, 90_000_001]))
    expected = [
        [0, 0, 0, 1, 0], [np.log1p(700) / 10, 1, 0, 0, 0], [0, 0, 0, 0, 1], [np.log1p(90_000) / 10, 1, 1, 0, 0],
    ]  # fmt: skip
    np.testing.assert_allclose(gap, expected, rtol=1e-6)


@pytest.mark.long
def test_the_memory_starts_as_the_papers_moving_averages():
    """With no input to the gates, h = x and z = α: a ← a + α (x − a), and the first click counts fully."""
    data = training_set(50)
    trainer = MemoryTrainer(data, config(second=0))
    weights = {n: np.zeros_like(w) if "gate.weight" in n else w for n, w in trainer.export().items()}
    towers = Towers.of(weights, data.query_spec, data.item_spec, trainer.config)
    x = np.random.default_rng(0).normal(size=(3, 8)).astype(np.float32)
    gap = np.zeros((3, 5), np.float32)
    none = np.zeros((1, 16), np.float32)
    after = towers.memory.fold(Groups.of(np.zeros(3, int), 1), none, np.zeros(1, int), x, gap).after()[0]
    for block, alpha in enumerate((0.4, 0.1)):
        a = x[0]
        for n, one in enumerate(x[1:], 1):
            a = a + max(alpha, 1 / (n + 1)) * (one - a)
        np.testing.assert_allclose(after[8 * block : 8 * block + 8], a, atol=1e-5)


def test_ease_is_the_ridge_solution_without_a_diagonal_and_its_memory_scores_a_querys_history():
    """B minimises ‖X − XB‖² + λ‖B‖² with diag(B) = 0; column by column that is a regression on the other items."""
    data = training_set(300)
    settings = ClosedFormConfig(weight=2.0, l2=5.0, decay=0.9, rank=60)
    chosen, b = item_weights(data, settings)
    x = np.zeros((len(data.queries), len(data.items)))
    x[data.clicks.queries, data.clicks.items] = 1
    x = x[:, chosen]
    for item in (0, 7, len(chosen) - 1):
        rest = np.delete(np.arange(len(chosen)), item)
        gram = x[:, rest].T @ x[:, rest] + settings.l2 * np.eye(len(rest))
        np.testing.assert_allclose(b[rest, item], np.linalg.solve(gram, x[:, rest].T @ x[:, item]), atol=1e-4)
        assert b[item, item] == 0
    read, answered = closed_form(data, settings)
    rank = min(settings.rank, len(chosen))
    np.testing.assert_allclose(read[chosen + 1] @ answered[chosen + 1].T, b, atol=1e-3), rank
    assert not read[0].any() and answered[0].any(), "a new item adds nothing, and answers an average"
    memory = LearnedMemory({}, config(second=0, learned=False).model_copy(update={"closed_form": settings}))
    history = chosen[[3, 5, 3]]
    readings = np.c_[np.zeros((3, 8), np.float32), read[history + 1]]
    state = np.zeros((1, 16 + 60), np.float32)
    folded = memory.fold(Groups.of(np.zeros(3, int), 1), state, np.zeros(1, int), readings, np.zeros((3, 5))).after()
    expected = 0.81 * b[3] + 0.9 * b[5] + b[3]
    np.testing.assert_allclose(folded[0, 16:] @ answered[chosen + 1].T, expected, atol=1e-3)


@pytest.mark.trains
def test_the_closed_form_is_a_part_of_the_score():
    data = training_set(300)
    with_it = MEMORIES.model_copy(update={"epochs": 1, "closed_form": ClosedFormConfig(weight=2.0, l2=5.0, rank=60)})
    plain, more = (fit(data, each, cut_ms=CUT_MS) for each in (MEMORIES.model_copy(update={"epochs": 1}), with_it))
    dims = plain.items.vectors.shape[1]
    np.testing.assert_allclose(more.items.vectors[:, :dims], plain.items.vectors, atol=1e-5)
    _, b = item_weights(data, with_it.closed_form)
    row = int(np.argmax(np.bincount(data.clicks.queries)))
    history = data.clicks.items[data.clicks.queries == row]
    expected = 2.0 / with_it.temperature * sum(0.96**age * b[item] for age, item in enumerate(history[::-1]))
    np.testing.assert_allclose(more.items.vectors[:, dims:] @ more.queries.vectors[row, dims:], expected, atol=2e-3)
