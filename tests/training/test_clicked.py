"""Who has clicked what by when, against looking it up click by click."""

import numpy as np
import pytest

from training.clicked import Clicked


def test_it_says_of_every_pair_whether_it_was_clicked_before():
    random = np.random.default_rng(0)
    queries, items = random.integers(-1, 9, 200), random.integers(0, 30, 200)
    clicks = list(zip(queries.tolist(), items.tolist(), strict=True))
    asked, candidates, numbers = (
        random.integers(-1, 9, 12),
        random.integers(-1, 30, (12, 3)),
        random.integers(0, 200, 12),
    )
    expected = [
        [[q >= 0 and (q, i) in clicks[:n] for i in row] for row in candidates.tolist()]
        for q, n in zip(asked.tolist(), numbers.tolist(), strict=True)
    ]
    assert 0.1 < np.mean(expected) < 0.9
    np.testing.assert_array_equal(Clicked(queries, items).before(numbers, asked, candidates), expected)


@pytest.mark.parametrize("twice", [False, True])
def test_a_query_has_seen_its_positives_of_the_batch_and_before_it_if_few_click_twice(twice):
    """Query 0 clicks 5, 6, 7 and query 1 clicks 8 (or 5, 5, 7 and 8); the batch is the last two clicks."""
    queries, items = np.array([0, 0, 0, 1]), np.array([5, 5 if twice else 6, 7, 8])
    candidates = np.array([[7, 8], [8, 5]])
    seen = Clicked(queries, items).seen(np.array([2, 3]), queries[2:], candidates)
    assert seen.tolist() == [[[True, False], [False, not twice]], [[False, False], [True, False]]]


def test_queries_without_clicks_have_none():
    assert not Clicked(np.array([-1, -1]), np.array([3, 4])).before(np.array([9]), np.array([-1]), np.array([3])).any()


@pytest.mark.parametrize("repeats", [0, 49, 50])
def test_clicking_twice_is_rare_below_one_click_in_twenty(repeats):
    items = np.maximum(np.arange(1_000) - repeats, 0)
    assert Clicked(np.zeros(1_000, np.int64), items).rarely_twice == (repeats < 50)
