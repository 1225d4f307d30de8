"""The fold is eq. 2's SGD step, one click at a time."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.fold import fold, step_sizes
from model.scan import Groups
from training import losses

ALPHAS = (0.5, 0.1)
DIM = 3


def one_by_one(state, counts, key, targets):
    """The fold as a person would write it."""
    state, counts, before = state.copy().reshape(len(state), len(ALPHAS), DIM), counts.copy(), []
    for group, target in zip(key, targets, strict=True):
        before.append(state[group].copy())
        for m, alpha in enumerate(ALPHAS):
            eta = max(alpha, 1 / (counts[group] + 1))
            state[group, m] = (1 - eta) * state[group, m] + eta * target
        counts[group] += 1
    return np.array(before).reshape(len(key), len(ALPHAS) * DIM), state.reshape(len(state), -1)


def random_case(keys, clicks, seed):
    rng = np.random.default_rng(seed)
    key = rng.integers(0, keys, clicks)
    state = rng.normal(size=(keys, len(ALPHAS) * DIM)).astype(np.float32)
    return state, rng.integers(0, 40, keys), key, rng.normal(size=(clicks, DIM)).astype(np.float32)


@pytest.mark.parametrize("seen", [1, 9, 500])
def test_a_fold_equals_one_autograd_sgd_step_of_the_mimic_loss(seen):
    """SGD on eq. 2 with rate η/2 on one pair (T = 1): a ← a − η/2 · ∂‖a − sg(p)‖²/∂a."""
    rng = np.random.default_rng(1)
    a, p = rng.normal(size=(1, 2, 8)).astype(np.float32), rng.normal(size=(1, 8)).astype(np.float32)
    eta = step_sizes(np.array([seen]), ALPHAS)[0]
    expected = []
    for m in range(2):
        parameter = torch.from_numpy(a[:, m : m + 1].copy()).requires_grad_()
        (gradient,) = torch.autograd.grad(losses.mimic(parameter, torch.from_numpy(p), pairs=1), parameter)
        # By hand: torch.optim takes seconds to import, and this is all that SGD does.
        expected.append((parameter - eta[m] / 2 * gradient).detach().numpy()[0, 0])
    after = fold(Groups.of(np.array([0]), 1), a.reshape(1, -1), np.array([seen]), p, ALPHAS).after()
    np.testing.assert_allclose(after.reshape(2, -1), expected, atol=1e-6)


def test_the_first_click_counts_fully_and_the_step_never_falls_below_alpha():
    np.testing.assert_allclose(
        step_sizes(np.array([0, 1, 3, 1000]), (0.1, 0.4)), [[1, 1], [0.5, 0.5], [0.25, 0.4], [0.1, 0.4]]
    )


@settings(max_examples=60, deadline=None)
@given(keys=st.integers(1, 9), clicks=st.integers(0, 60), seed=st.integers(0, 10_000))
def test_the_scan_equals_folding_one_by_one(keys, clicks, seed):
    state, counts, key, targets = random_case(keys, clicks, seed)
    folded = fold(Groups.of(key, keys), state, counts, targets, ALPHAS)
    before, after = one_by_one(state, counts, key, targets)
    np.testing.assert_allclose(folded.before(), before, atol=2e-5)
    np.testing.assert_allclose(folded.after(), after, atol=2e-5)


@settings(max_examples=30, deadline=None)
@given(cut=st.integers(0, 40), seed=st.integers(0, 10_000))
def test_where_a_batch_is_cut_does_not_matter(cut, seed):
    state, counts, key, targets = random_case(4, 40, seed)
    whole = fold(Groups.of(key, 4), state, counts, targets, ALPHAS)
    first = fold(Groups.of(key[:cut], 4), state, counts, targets[:cut], ALPHAS)
    counts = counts + np.bincount(key[:cut], minlength=4)
    second = fold(Groups.of(key[cut:], 4), first.after(), counts, targets[cut:], ALPHAS)
    np.testing.assert_allclose(whole.before(), np.concatenate([first.before(), second.before()]), atol=2e-5)
    np.testing.assert_allclose(whole.after(), second.after(), atol=2e-5)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_a_click_knows_of_no_other_click_of_its_moment(seed):
    """Against folding the clicks of earlier moments one by one."""
    state, counts, key, targets = random_case(4, 30, seed)
    moments = np.sort(np.random.default_rng(seed).integers(0, 8, 30))
    groups = Groups.of(key, 4)
    seen = fold(groups, state, counts, targets, ALPHAS).before(groups.before_moment(moments))
    for click in range(30):
        earlier = moments < moments[click]
        _, known = one_by_one(state, counts, key[earlier], targets[earlier])
        np.testing.assert_allclose(seen[click], known[key[click]], atol=2e-5)


def test_ranks_count_earlier_clicks_of_the_same_key():
    assert Groups.of(np.array([7, 3, 7, 7, 3]), 8).rank.tolist() == [0, 0, 1, 2, 1]
