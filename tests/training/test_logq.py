"""Expected counts of candidates, against counting and against numbers worked out by hand."""

import numpy as np
import pytest

from training.logq import ItemFrequency


def expected(frequency: ItemFrequency, items: list[int], first: int, last: int, uniform: float, own: int = 0):
    return np.exp(frequency.log_expected(np.array(items), first, last, uniform, own))


def test_it_counts_the_clicks_of_a_stretch_and_the_uniform_negatives():
    """Item 7 makes up the first half of the log and none of the second; one uniform negative among 10 items."""
    frequency = ItemFrequency(np.repeat([7, 3], 50))
    np.testing.assert_allclose(expected(frequency, [7, 1, 3], -10, 14, 0.1), [1.1, 0.1, 0.1])
    np.testing.assert_allclose(expected(frequency, [3, 7], 40, 60, 0.1), [0.6, 0.6])
    # A positive is one of the 20 clicks from 40 to 60, and does not count for itself.
    np.testing.assert_allclose(expected(frequency, [3, 7], 40, 60, 0.1, own=1), [9 / 19 + 0.1] * 2)


def test_the_only_click_on_an_item_does_not_make_it_expected():
    assert expected(ItemFrequency(np.arange(20)), [8], 0, 20, 0.05, own=1) == pytest.approx(0.05)


@pytest.mark.parametrize(("first", "last"), [(0, 300), (-50, 120), (100, 101), (250, 900)])
def test_it_agrees_with_counting(first, last):
    items = np.random.default_rng(0).integers(0, 12, 300)
    around = items[max(first, 0) : last]
    counts = np.array([(around == item).sum() for item in range(12)])
    np.testing.assert_allclose(
        expected(ItemFrequency(items), list(range(12)), first, last, 2 / 12), counts / len(around) + 2 / 12
    )
