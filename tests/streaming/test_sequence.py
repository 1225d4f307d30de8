"""The counters that each click of a batch finds are those that counting one by one would give."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from streaming.sequence import activity, group
from training.activity import count

HALF_LIVES = (600_000, 3_600_000)
START = 1_700_000_000_000


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 50_000_000)), max_size=40), st.booleans())
def test_a_batch_equals_one_by_one_in_any_order_of_times(events, known):
    groups = np.array([key for key, _ in events], np.int64)
    times = START + np.array([offset for _, offset in events], np.int64)
    counters = np.full((4, 2), 2.5, np.float32) if known else np.zeros((4, 2), np.float32)
    last = np.full(4, START - 1000) if known else np.zeros(4, np.int64)
    got = activity(counters, last, groups, times, HALF_LIVES)
    for k in range(len(groups)):
        key = groups[k]
        np.testing.assert_allclose(got.before[k], counters[key], rtol=1e-4)
        assert got.before_last[k] == last[key]
        one, latest = count(counters[[key]], last[[key]], np.zeros(1, np.int64), times[[k]], HALF_LIVES)
        counters[key], last[key] = one[0], latest[0]
    np.testing.assert_allclose(got.after, counters, rtol=1e-4)
    np.testing.assert_array_equal(got.latest, last)


def test_ids_are_grouped_in_order_of_appearance():
    ids, groups = group(["b", "a", "b", "c"])
    assert ids == ["b", "a", "c"]
    assert groups.tolist() == [0, 1, 0, 2]
