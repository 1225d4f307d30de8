"""Who has clicked what by when, against looking it up click by click."""

import numpy as np
import pytest

from evaluation.baselines.clicked_before import ClickedBefore


@pytest.mark.parametrize("excludes_seen", [False, True])
def test_a_query_has_seen_its_positives_of_the_batch_and_before_it_if_answers_leave_them_out(excludes_seen):
    random = np.random.default_rng(0)
    queries, items = random.integers(0, 9, 200), random.integers(0, 30, 200)
    clicks = list(zip(queries.tolist(), items.tolist(), strict=True))
    numbers = np.arange(90, 114)
    candidates = np.unique(np.r_[items[numbers], random.integers(0, 30, 8)])
    rows, columns = ClickedBefore(queries, items, excludes_seen).of(
        numbers, queries[numbers], items[numbers], candidates
    )
    mask = np.zeros((len(numbers), len(candidates)), bool)
    mask[rows, columns] = True
    batch = {clicks[number] for number in numbers}
    expected = [
        [(clicks[n][0], item) in batch or (excludes_seen and (clicks[n][0], item) in clicks[:n]) for item in candidates]
        for n in numbers.tolist()
    ]
    assert 0.05 < np.mean(expected) < 0.9
    np.testing.assert_array_equal(mask, expected)
    assert (np.diff(rows) >= 0).all() and len(rows) == mask.sum(), "in the order of rows, each cell once"
