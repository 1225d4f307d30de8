"""Decayed counters, held against a sum over all clicks so far."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from model.counters import count, decay
from model.scan import Groups

HALF_LIVES = (600_000, 3_600_000)
LATE = st.lists(st.tuples(st.integers(0, 3), st.integers(1, 10_000_000)), max_size=40)


def by_sum(clicks: list[tuple[int, int]], key: int) -> tuple[list[float], int]:
    """Counters of a key as of its latest click, and that one's time."""
    times = [time for owner, time in clicks if owner == key]
    latest = max(times, default=0)
    return [sum(2 ** (-(latest - time) / half) for time in times) for half in HALF_LIVES], latest


@settings(deadline=None)
@given(LATE)
def test_counters_around_each_click_are_decayed_sums_in_whatever_order_clicks_arrive(clicks):
    key, times = (np.array([c[k] for c in clicks], np.int64) for k in (0, 1))
    counted = count(Groups.of(key, 4), np.zeros((4, 2)), np.zeros(4, np.int64), times, HALF_LIVES)
    counters, last = counted.before()
    for number, (owner, _) in enumerate(clicks):
        expected, latest = by_sum(clicks[:number], owner)
        np.testing.assert_allclose(counters[number], expected, rtol=1e-5)
        assert last[number] == latest
    counters, last = counted.after()
    for owner in range(4):
        expected, latest = by_sum(clicks, owner)
        np.testing.assert_allclose(counters[owner], expected, rtol=1e-5)
        assert last[owner] == latest


@settings(deadline=None)
@given(LATE, LATE)
def test_a_batch_goes_on_from_the_counters_before_it(first, second):
    state = np.zeros((4, 2)), np.zeros(4, np.int64)
    for clicks in (first, second):
        key, times = (np.array([c[k] for c in clicks], np.int64) for k in (0, 1))
        state = count(Groups.of(key, 4), *state, times, HALF_LIVES).after()
    for owner in range(4):
        np.testing.assert_allclose(state[0][owner], by_sum(first + second, owner)[0], rtol=1e-5)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 10_000_000), st.integers(1, 3)), max_size=20))
def test_a_click_of_weight_n_counts_as_n_clicks(clicks):
    key, times, weights = (np.array([c[k] for c in clicks], np.int64) for k in range(3))
    weighed = count(Groups.of(key, 4), np.zeros((4, 2)), np.zeros(4, np.int64), times, HALF_LIVES, weights).after()
    again = [np.repeat(values, weights) for values in (key, times)]
    counted = count(Groups.of(again[0], 4), np.zeros((4, 2)), np.zeros(4, np.int64), again[1], HALF_LIVES).after()
    np.testing.assert_allclose(weighed[0], counted[0], rtol=1e-5)
    np.testing.assert_array_equal(weighed[1], counted[1])


def test_a_counter_halves_after_its_half_life_and_time_that_runs_backwards_does_not_decay_it():
    values = decay(np.array([[4.0, 4.0], [4.0, 4.0]]), np.array([3_600_000, -5]), HALF_LIVES)
    np.testing.assert_allclose(values, [[4 / 64, 2], [4, 4]])


def test_millions_of_keys_are_as_good_as_one():
    """Times are some 10^12 ms: times the number of keys they would leave 64 bits."""
    size, times = 6_000_000, 1_700_000_000_000 + np.array([7_200_000, 0, 3_600_000])
    groups = Groups.of(np.array([0, size - 1, size - 1]), size)
    counters, last = count(
        groups, np.zeros((size, 1), np.float32), np.zeros(size, np.int64), times, (3_600_000,)
    ).after()
    assert counters[[0, -1], 0].tolist() == [1, 1.5] and last[[0, -1]].tolist() == times[[0, 2]].tolist()
