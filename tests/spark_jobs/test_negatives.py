"""Negative sampling: the arithmetic of the draw, alone."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from spark_jobs.negatives import draw


@given(st.integers(0, 2**32 - 1), st.integers(1, 30), st.integers(1, 6))
def test_a_draw_never_takes_a_clicked_item_or_one_that_did_not_exist(seed, corpus, negatives):
    rng = np.random.default_rng(seed)
    clicked = np.flatnonzero(rng.random(corpus) < 0.4)
    exist = rng.integers(0, corpus + 1, 20)
    drawn = draw(clicked, exist, negatives, rng)
    for row, there in zip(drawn, exist, strict=True):
        left = np.setdiff1d(np.arange(there), clicked)
        if len(left):
            assert np.isin(row, left).all()
        else:
            assert (row == -1).all()


def test_every_item_that_is_left_is_drawn_equally_often():
    clicked = np.array([0, 3, 4, 9])
    drawn = draw(clicked, np.full(5_000, 12), 4, np.random.default_rng(1))
    items, counts = np.unique(drawn, return_counts=True)
    assert items.tolist() == [1, 2, 5, 6, 7, 8, 10, 11]
    assert chisquare(counts).pvalue > 0.001
