"""Decayed counters against the sum that they stand for."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from training.activity import count, count_each, decay

HALF_LIVES = (1_000, 60_000)


def brute_force(times, at):
    """Σ 2^(−age / half-life) over the clicks."""
    return [sum(2.0 ** (-(at - t) / half) for t in times) for half in HALF_LIVES]


@settings(max_examples=50, deadline=None)
@given(n=st.integers(1, 60), keys=st.integers(1, 5), seed=st.integers(0, 10_000))
def test_counters_equal_the_brute_force_sum_after_every_click(n, keys, seed):
    rng = np.random.default_rng(seed)
    times, groups = np.sort(rng.integers(0, 100_000, n)), rng.integers(0, keys, n)
    got = count_each(times, groups, HALF_LIVES)
    for row in range(n):
        mine = times[: row + 1][groups[: row + 1] == groups[row]]
        np.testing.assert_allclose(got[row], brute_force(mine, times[row]), rtol=1e-4)


@settings(max_examples=50, deadline=None)
@given(n=st.integers(1, 60), seed=st.integers(0, 10_000))
def test_a_batch_in_any_order_counts_the_same(n, seed):
    rng = np.random.default_rng(seed)
    times, groups = rng.integers(1, 100_000, n), rng.integers(0, 3, n)
    counters, latest = count(np.zeros((3, 2), np.float32), np.zeros(3, np.int64), groups, times, HALF_LIVES)
    for key in range(3):
        mine = times[groups == key]
        assert latest[key] == mine.max(initial=0)
        np.testing.assert_allclose(counters[key], brute_force(mine, latest[key]), rtol=1e-4)


def test_a_half_life_halves_and_time_running_backwards_does_not_decay():
    halved = decay(np.array([[8.0, 8.0]]), np.array([1_000]), HALF_LIVES)
    np.testing.assert_allclose(halved, [[4.0, 8.0 * 2 ** (-1 / 60)]], rtol=1e-6)
    assert decay(np.array([[8.0, 8.0]]), np.array([-5_000]), HALF_LIVES).tolist() == [[8.0, 8.0]]
