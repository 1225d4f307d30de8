"""The interval of a difference is over people, not over clicks."""

import numpy as np
import pytest

from evaluation.bootstrap import difference
from evaluation.metrics import MISS


def test_a_difference_is_the_mean_over_clicks_and_its_interval_is_wider_where_few_people_make_it():
    rng = np.random.default_rng(0)
    theirs, better = np.full(4_000, MISS), rng.random(4_000) < 0.3
    ours = np.where(better, 40, MISS)
    many, few = np.arange(4_000) // 4, np.where(better, 0, 1 + np.arange(4_000) // 4)
    mean, low, high = difference([ours], [theirs], many)["hr50"]
    assert mean == pytest.approx(better.mean()) and low < mean < high and high - low < 0.05
    assert difference([ours], [theirs], many)["mrr10"][0] == pytest.approx(better.mean() * 0.25)
    of_one = difference([ours], [theirs], few)["hr50"]
    assert of_one[0] == mean and of_one[1] == 0 and of_one[2] > 0.4, "one person made it: it may be luck"


def test_runs_are_averaged_and_equal_models_differ_by_nothing():
    ranks, other = np.array([1, 60, MISS]), np.array([1, 20, 30])
    assert difference([ranks], [ranks], np.arange(3))["hr100"] == (0, 0, 0)
    assert difference([ranks, other], [ranks], np.arange(3))["hr50"][0] == pytest.approx(1 / 3)
