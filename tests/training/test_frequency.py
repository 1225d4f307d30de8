"""Expected counts of candidates, against counting and against numbers worked out by hand."""

import numpy as np
import pytest

from training.frequency import Frequency


def test_it_counts_the_other_clicks_of_a_stretch_and_the_uniform_negatives():
    """Item 7 makes up the first half of the log and none of the second; one uniform negative among 10 items.

    Of the 13 other clicks from 0 to 14 all are on 7. From 40 to 60 there are 19 others, 10 on 7 and 9 on 3.
    """
    rows = np.array([[7, 1]] * 50 + [[3, 7]] * 50)
    frequency = Frequency(rows[:, 0])
    np.testing.assert_allclose(frequency.expected(rows[:4], -10, 14, items=10), [[1 + 0.1, 0.1]] * 4)
    np.testing.assert_allclose(frequency.expected(rows[50:52], 40, 60, items=10), [[9 / 19 + 0.1, 10 / 19 + 0.1]] * 2)


def test_the_only_click_on_an_item_does_not_make_it_expected():
    frequency = Frequency(np.arange(20))
    np.testing.assert_allclose(frequency.expected(np.array([[8, 9]]), 0, 20, items=20), [[0.05, 1 / 19 + 0.05]])


@pytest.mark.parametrize(("first", "last"), [(0, 300), (-50, 120), (100, 101), (250, 900)])
def test_it_agrees_with_counting(first, last):
    random = np.random.default_rng(0)
    rows = random.integers(-1, 12, (300, 3))
    asked = rows[max(first, 0) : last][:40]
    around = rows[max(first, 0) : last, 0]
    counts = np.array([[(around == item).sum() for item in row] for row in asked]) - [1, 0, 0]
    expected = counts / max(len(around) - 1, 1) + 2 / 12
    there = asked >= 0
    np.testing.assert_allclose(Frequency(rows[:, 0]).expected(asked, first, last, 12)[there], expected[there])
