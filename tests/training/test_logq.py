"""Expected counts of candidates, against counting and against numbers worked out by hand."""

import numpy as np
import pytest

from evaluation.baselines.clicks_by_item import ClicksByItem
from training.logq import ItemFrequency


def frequency(items: np.ndarray, first: int, last: int) -> ItemFrequency:
    found = ItemFrequency(int(items.max()) + 1, len(items))
    found.read(items)
    found.move(first, last)
    return found


def expected(frequency: ItemFrequency, items: list[int], uniform: float, own: int = 0):
    return np.exp(frequency.log_expected(np.array(items), uniform, own))


def test_it_counts_the_clicks_of_a_stretch_and_the_uniform_negatives():
    """Item 7 makes up the first half of the log and none of the second; one uniform negative among 10 items."""
    log = np.repeat([7, 3], 50)
    np.testing.assert_allclose(expected(frequency(log, -10, 14), [7, 1, 3], 0.1), [1.1, 0.1, 0.1])
    np.testing.assert_allclose(expected(frequency(log, 40, 60), [3, 7], 0.1), [0.6, 0.6])
    # A positive is one of the 20 clicks from 40 to 60, and does not count for itself.
    np.testing.assert_allclose(expected(frequency(log, 40, 60), [3, 7], 0.1, own=1), [9 / 19 + 0.1] * 2)


def test_the_only_click_on_an_item_does_not_make_it_expected():
    assert expected(frequency(np.arange(20), 0, 20), [8], 0.05, own=1) == pytest.approx(0.05)


def test_a_stretch_that_moves_on_counts_what_is_in_it_and_holds_nothing_else():
    """In pieces as a stream reads them, against counting; and so does what rivals count by."""
    items, half = np.random.default_rng(0).integers(0, 12, 300), 40
    found, whole = ItemFrequency(12, 300), ClicksByItem(items)
    for start in range(0, 300, 25):
        while found.read_to < min(start + 25 + half, 300):
            found.read(items[found.read_to : found.read_to + 10])
        first, last = start - half, start + 25 + half
        found.move(first, last)
        around = items[max(first, 0) : last]
        counts = np.array([(around == item).sum() for item in range(12)])
        np.testing.assert_allclose(expected(found, list(range(12)), 2 / 12), counts / len(around) + 2 / 12)
        assert len(found.held) <= 2 * half + 25 + 10
        np.testing.assert_array_equal(whole.of(np.arange(12), first, last), counts)
        assert whole.around(first, last) == len(around)
