"""The fold is eq. 2's SGD step, one click at a time."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from training import losses
from training.amm import fold, ranks_within, steps
from training.augmented import AugmentedTable

MEMORIES = (0.5, 0.1)


def one_by_one(state, clicks, groups, targets, memories):
    """The fold as a person would write it."""
    state, clicks, before = state.copy(), clicks.copy(), []
    for group, target in zip(groups, targets, strict=True):
        before.append(state[group].copy())
        for m, alpha in enumerate(memories):
            eta = max(alpha, 1 / (clicks[group] + 1))
            state[group, m] = (1 - eta) * state[group, m] + eta * target
        clicks[group] += 1
    return np.array(before).reshape(len(groups), *state.shape[1:]), state


def random_case(keys, clicks, seed, dim=3):
    rng = np.random.default_rng(seed)
    groups = rng.integers(0, keys, clicks)
    state = rng.normal(size=(keys, len(MEMORIES), dim)).astype(np.float32)
    return state, rng.integers(0, 40, keys), groups, rng.normal(size=(clicks, dim)).astype(np.float32)


@pytest.mark.parametrize("seen", [1, 9, 500])
def test_a_fold_equals_one_autograd_sgd_step_of_the_mimic_loss(seen):
    """SGD on eq. 2 with rate η/2 on one pair (T = 1): a ← a − η/2 · ∂‖a − sg(p)‖²/∂a."""
    rng = np.random.default_rng(1)
    a, p = rng.normal(size=(1, 2, 8)).astype(np.float32), rng.normal(size=(1, 8)).astype(np.float32)
    eta = steps(np.array([seen]), MEMORIES)[0]
    expected = []
    for m in range(2):
        parameter = torch.nn.Parameter(torch.from_numpy(a[:, m : m + 1].copy()))
        optimiser = torch.optim.SGD([parameter], lr=float(eta[m]) / 2)
        losses.mimic(parameter, torch.from_numpy(p), pairs=1).backward()
        optimiser.step()
        expected.append(parameter.detach().numpy()[0, 0])
    after = fold(a, np.array([seen]), np.array([0]), p, MEMORIES).after
    np.testing.assert_allclose(after[0], expected, atol=1e-6)


def test_the_first_click_counts_fully_and_the_step_never_falls_below_alpha():
    np.testing.assert_allclose(
        steps(np.array([0, 1, 3, 1000]), (0.1, 0.4)), [[1, 1], [0.5, 0.5], [0.25, 0.4], [0.1, 0.4]]
    )


@settings(max_examples=60, deadline=None)
@given(keys=st.integers(1, 9), clicks=st.integers(0, 60), seed=st.integers(0, 10_000))
def test_the_scan_equals_folding_one_by_one(keys, clicks, seed):
    state, folded, groups, targets = random_case(keys, clicks, seed)
    got = fold(state, folded, groups, targets, MEMORIES)
    before, after = one_by_one(state, folded, groups, targets, MEMORIES)
    np.testing.assert_allclose(got.before, before, atol=2e-5)
    np.testing.assert_allclose(got.after, after, atol=2e-5)


@settings(max_examples=30, deadline=None)
@given(cut=st.integers(0, 40), seed=st.integers(0, 10_000))
def test_where_a_batch_is_cut_does_not_matter(cut, seed):
    _, _, rows, targets = random_case(4, 40, seed)
    whole, parts = AugmentedTable(4, MEMORIES, 3), AugmentedTable(4, MEMORIES, 3)
    at_once = whole.fold(rows + 1, targets)
    in_two = np.concatenate([parts.fold(rows[:cut] + 1, targets[:cut]), parts.fold(rows[cut:] + 1, targets[cut:])])
    np.testing.assert_allclose(at_once, in_two, atol=2e-5)
    np.testing.assert_allclose(whole.a, parts.a, atol=2e-5)
    assert (whole.folded == parts.folded).all() and whole.folded.sum() == 40


def test_the_row_of_unknown_ids_stays_zero():
    table = AugmentedTable(2, MEMORIES, 3)
    table.fold(np.array([0, 1, 0]), np.ones((3, 3), np.float32))
    assert (table.a[0] == 0).all() and table.folded.tolist() == [0, 1, 0]


def test_ranks_within_counts_earlier_clicks_of_the_same_key():
    assert ranks_within(np.array([7, 3, 7, 7, 3])).tolist() == [0, 0, 1, 2, 1]
