"""The published training (eq. 2 to 4): what its gradient does, by hand, and that its vectors go on by the fold."""

import numpy as np
import pytest
import torch

from evaluation.dat_scorer import LiveDAT
from evaluation.ranks import rank_clicks
from evaluation.test_clicks import make_test
from model.fold import step_sizes
from tests.tiny import CUT_MS
from tests.training.data import CARD, GRADIENT, profiles, table, training_set
from training.block import Block
from training.fit import fit
from training.paper import PaperTrainer
from training.seen_mask import SeenMask
from training.training_set import TrainingSet

pytestmark = pytest.mark.trains

SIZE = 6


def gradients(data: TrainingSet, **weights: float) -> tuple[dict[str, torch.Tensor], PaperTrainer]:
    """Of all parameters, in one step on the last clicks of a window; augmented vectors are random."""
    paper = GRADIENT.paper.model_copy(update={"lambda_u": 0.0, "lambda_v": 0.0, "lambda_ca": 0.0} | weights)
    trainer = PaperTrainer(data, GRADIENT.model_copy(update={"paper": paper}))
    for table_ in (trainer.a_u, trainer.a_v):
        torch.nn.init.normal_(table_.weight, std=0.3, generator=torch.Generator().manual_seed(0))
    for tower in (trainer.model.query_tower, trainer.model.item_tower):
        tower.dense_std.fill_(1)  # whatever the negatives are
        tower.dense_mean.zero_()
    trainer.replay = trainer.restart()
    trainer.optimiser.step = lambda loss: loss.backward()  # type: ignore[method-assign]
    last = Block(0, data.clicks, data.negatives).part(slice(len(data) - SIZE, len(data)))
    observed = trainer.replay.observe(last.clicks, trainer.towers)
    trainer.step(last, slice(0, SIZE), *observed.before(), SeenMask(observed.fold, data.excludes_seen))
    found = {name: weight.grad for name, weight in trainer.parameters.named_parameters() if weight.grad is not None}
    return {name: grad.to_dense() if grad.is_sparse else grad for name, grad in found.items()}, trainer


@pytest.mark.parametrize("side", ["u", "v"])
def test_a_vector_is_pulled_towards_the_other_towers_output_and_nothing_else_is(side):
    """∂/∂a_u of λ/T Σ ‖a_u − sg(p_v)‖² is 2 λ (a_u − p_v) / T, T being all pairs of the batch; a_v alike with p_u."""
    data = training_set(200, negatives=3)
    without, trainer = gradients(data)
    given, _ = gradients(data, **{f"lambda_{side}": 10.0})
    clicks = data.clicks[len(data.clicks) - SIZE :]
    now = int(clicks.times[0])
    query, a_u = trainer.replay.observe(clicks, trainer.towers).before()
    item, a_v = trainer.replay.item_inputs(clicks.items, now)
    p_u, p_v = trainer.towers.query(query, a_u), trainer.towers.item(item, a_v)
    rows, own, other = (clicks.queries, a_u, p_v) if side == "u" else (clicks.items, a_v, p_u)
    expected, pairs = np.zeros(given[f"a_{side}.weight"].shape), SIZE * 4
    pairs -= int((data.negatives[-SIZE:] == clicks.items[:, None]).sum())
    np.add.at(expected, rows, 10 * 2 * (own - other) / pairs)
    assert np.abs(expected).max() > 0.01
    for name, gradient in given.items():
        more = gradient - without[name]
        right = expected if name == f"a_{side}.weight" else np.zeros(gradient.shape)
        np.testing.assert_allclose(more, right, atol=2e-6, err_msg=name)


def test_categories_are_aligned_by_the_items_alone():
    data = training_set(200)
    without, _ = gradients(data)
    given, _ = gradients(data, lambda_ca=5.0)
    changed = {name for name in given if not torch.equal(given[name], without[name])}
    assert changed and all(name.startswith(("model.item_tower.", "a_v")) for name in changed)


def test_a_negative_that_does_not_exist_or_is_the_clicked_item_teaches_nothing():
    data = training_set(200)
    last, negatives = slice(len(data.clicks) - SIZE, None), data.negatives.copy()
    negatives[last] = data.clicks.items[last][:, None]
    same, _ = gradients(data.with_clicks(data.clicks, negatives.copy()))
    negatives[last] = -1
    none, _ = gradients(data.with_clicks(data.clicks, negatives))
    assert same.keys() == none.keys()
    for name in same:
        torch.testing.assert_close(same[name], none[name])


def test_what_was_learnt_by_gradient_goes_on_by_the_fold():
    """A click after the cut moves the learnt a_u by the step that the stream makes."""
    data = training_set()
    model = fit(data, GRADIENT.model_copy(update={"epochs": 1}), cut_ms=CUT_MS)
    queries, items = data.at_cut
    clicks = table(np.array([4]), np.array([9]), np.array([CUT_MS + 1_000]))
    test = make_test(clicks, profiles(), CARD, queries, items, data.query_spec, data.item_spec, False, CUT_MS)
    live = LiveDAT(model, test)
    row, item = test.clicks.queries[0], test.clicks.items[0]
    before, p_v = live.replay.queries.a[row].copy(), live.replay.items.vectors[item].copy()
    np.testing.assert_array_equal(before, model.queries.a[row])
    assert (rank_clicks(live, test) <= len(items)).all()
    eta = step_sizes(queries.clicks[[row]], GRADIENT.ema_alphas)[0, 0]
    np.testing.assert_allclose(live.replay.queries.a[row], before + eta * (p_v - before), atol=1e-5)


def test_both_augmented_vectors_come_near_what_they_mimic_in_a_whole_run():
    """a_u near the mean p_v of its query's items, not near p_u: the crossing."""
    data = training_set()
    paper = GRADIENT.paper.model_copy(update={"lambda_u": 20.0, "lambda_v": 20.0})
    model = fit(data, GRADIENT.model_copy(update={"epochs": 8, "paper": paper}), cut_ms=CUT_MS)
    clicks = data.clicks
    mean = [model.items.vectors[clicks.items[clicks.queries == row]].mean(0) for row in range(len(data.queries))]
    crossed = np.square(model.queries.a - np.stack(mean)).sum(1).mean()
    assert crossed < 0.5 * np.square(model.queries.a - model.queries.vectors).sum(1).mean()
