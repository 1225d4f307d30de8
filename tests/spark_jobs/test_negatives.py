"""Negative sampling: the arithmetic of the draw, alone, against brute force and chi-square."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy.stats import chisquare

from spark_jobs.config import NegativeMix
from spark_jobs.negatives import Corpus, Urn, random_numbers

KINDS = {
    "uniform": NegativeMix(),
    "popular": NegativeMix(uniform=0, popular=1),
    "popular, to the click": NegativeMix(uniform=0, popular=1, popularity_power=1),
    "category": NegativeMix(uniform=0, category=1),
    "mixture": NegativeMix(uniform=2, popular=1, category=1),
}
ITEMS, CATEGORIES = 24, 3


@given(st.integers(0, 2**32 - 1), st.integers(1, 30), st.integers(1, 6))
def test_a_draw_takes_only_what_has_weight_is_in_range_and_is_not_taken(seed, size, negatives):
    rng = np.random.default_rng(seed)
    weights = rng.integers(0, 4, size)
    groups = rng.integers(0, 3, 20)
    taken = np.flatnonzero(rng.random(3 * size) < 0.4)
    low = rng.integers(0, size + 1, 20)
    high = np.maximum(low, rng.integers(0, size + 1, 20))
    drawn = Urn.of(weights).draw(groups, taken, low, high, rng.random((20, negatives)))
    for row, group, start, stop in zip(drawn, groups, low, high, strict=True):
        left = [k for k in range(start, stop) if weights[k] and group * size + k not in taken]
        assert set(row) <= set(left) if left else (row == -1).all()


@pytest.fixture(scope="module")
def corpus_folder(tmp_path_factory):
    """Items i0…, of which half exist from 0 and half from 100; item 3 has no category, item 5 no click."""
    folder = tmp_path_factory.mktemp("corpus")
    clicks = 1 + np.arange(ITEMS) ** 2
    clicks[5] = 0
    table = {
        "item_id": [f"i{k:02}" for k in range(ITEMS)],
        "since": np.where(np.arange(ITEMS) < ITEMS // 2, 0, 100),
        "clicks": clicks,
        "category": [None if k == 3 else f"c{k % CATEGORIES}" for k in range(ITEMS)],
    }
    pq.write_table(pa.table(table), folder / "part.parquet")
    return folder


def _expected(mix: NegativeMix, positive: int, exist: int, clicked: set[int]) -> np.ndarray:
    """The asked distribution over all items, by the definition."""
    left = np.array([k < exist and k not in clicked for k in range(ITEMS)], float)
    clicks = 1.0 + np.arange(ITEMS) ** 2
    clicks[5] = 0
    popular = left * clicks**mix.popularity_power
    same = left * np.array([k % CATEGORIES == positive % CATEGORIES and k != 3 for k in range(ITEMS)])
    shares = np.array([mix.uniform, mix.popular, mix.category]) / mix.total
    return sum(share * part / part.sum() for share, part in zip(shares, (left, popular, same), strict=True))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("time", [50, 150])
def test_negatives_follow_the_asked_distribution(corpus_folder, kind, time):
    mix, rows = KINDS[kind], 30_000
    corpus = Corpus.read(corpus_folder, mix.popularity_power)
    clicked = [0, 4, 9]  # the query's items: what it clicks now, and two others
    items = np.r_[np.full(rows, 4), 0, 9]
    groups, times = np.zeros(rows + 2, np.int64), np.full(rows + 2, time)
    numbers = random_numbers(np.arange(rows + 2) * 7_919, 8)
    drawn = corpus.draw(items, groups, times, mix, numbers[:, :4], numbers[:, 4:])[:rows]
    expected = _expected(mix, 4, ITEMS if time >= 100 else ITEMS // 2, set(clicked))
    counts = np.bincount(drawn.ravel(), minlength=ITEMS)
    assert counts[expected == 0].sum() == 0
    some = expected > 0
    assert chisquare(counts[some], expected[some] * rows * 4).pvalue > 1e-4


def test_where_a_kind_has_nothing_left_the_draw_is_uniform(corpus_folder):
    corpus = Corpus.read(corpus_folder, 1.0)
    numbers = random_numbers(np.arange(400), 2)
    zeros = np.zeros(400, np.int64)
    hard = NegativeMix(uniform=0, category=1)
    drawn = corpus.draw(zeros + 3, zeros, zeros, hard, numbers[:, :1], numbers[:, 1:])  # item 3 has no category
    assert set(drawn.ravel()) == set(range(ITEMS // 2)) - {3}


def test_random_numbers_are_uniform_and_independent_of_their_neighbours():
    numbers = random_numbers(np.arange(100_000), 2)
    for column in numbers.T:
        assert chisquare(np.histogram(column, 50, (0, 1))[0]).pvalue > 1e-4
    assert abs(np.corrcoef(numbers[:-1, 0], numbers[1:, 0])[0, 1]) < 0.02
    assert abs(np.corrcoef(numbers.T)[0, 1]) < 0.02


def test_a_mixture_of_nothing_is_refused():
    with pytest.raises(ValidationError, match="at least one kind"):
        NegativeMix(uniform=0)
