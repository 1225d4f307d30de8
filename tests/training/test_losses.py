"""The losses against numbers worked out by hand."""

import math

import numpy as np
import pytest
import torch

from training import losses


def test_mimic_is_summed_over_dimensions_and_averaged_over_pairs():
    """B = 2 positives with S = 4: T = 10. (1² + 2²) + (0 + 3²) = 14, so 1.4."""
    a = torch.tensor([[[1.0, 2.0]], [[0.0, 0.0]]])
    p = torch.tensor([[0.0, 0.0], [0.0, 3.0]])
    assert float(losses.mimic(a, p, pairs=10)) == pytest.approx(1.4)


def test_no_gradient_of_the_mimic_loss_flows_into_the_other_tower():
    a, p = torch.zeros(2, 1, 3, requires_grad=True), torch.ones(2, 3, requires_grad=True)
    losses.mimic(a, p, pairs=2).backward()
    assert p.grad is None
    np.testing.assert_allclose(a.grad.numpy(), np.full((2, 1, 3), -1.0))  # 2 (a − p) / T


def test_category_alignment_by_hand():
    """Category 1: (1,0), (−1,0), (0,0): covariance diag(1, 0). Category 2: (0,1), (0,−1): diag(0, 2). So 1 + 4."""
    vectors = torch.tensor([[1.0, 0], [0, 1.0], [-1.0, 0], [0, -1.0], [0, 0]])
    assert float(losses.category_alignment(vectors, torch.tensor([1, 2, 1, 2, 1]))) == pytest.approx(5.0)


@pytest.mark.parametrize("categories", [[1, 1, 1, 1], [1, 1, 1, 2], [1, 2, 3, 4], [0, 0, 1, 1], []])
def test_category_alignment_is_zero_and_finite_without_two_usable_categories(categories):
    vectors = torch.randn(len(categories), 3, requires_grad=True)
    loss = losses.category_alignment(vectors, torch.tensor(categories, dtype=torch.long))
    assert float(loss.detach()) == 0.0


def test_a_category_of_one_item_does_not_change_the_others():
    torch.manual_seed(0)
    vectors, categories = torch.randn(7, 3), torch.tensor([1, 1, 1, 2, 2, 3, 0])
    both = losses.category_alignment(vectors, categories)
    assert float(both) == pytest.approx(float(losses.category_alignment(vectors[:5], categories[:5])))


def test_cross_entropy_by_hand_leaves_out_missing_candidates():
    """Scores 1 and −1 at temperature 2: −ln σ(2) and −ln σ(2); the third candidate does not exist."""
    queries = torch.tensor([[1.0, 0.0]])
    items = torch.tensor([[[1.0, 0.0], [-1.0, 0.0], [1.0, 0.0]]])
    loss = losses.binary_cross_entropy(queries, items, torch.tensor([[True, True, False]]), temperature=2.0)
    assert float(loss) == pytest.approx(math.log(1 + math.exp(-2)))


NONE = torch.zeros(2, 2, 2, dtype=torch.bool)  # nobody has seen anything


def softmax_case():
    """Two queries, one negative each, all scores 0 or 1."""
    queries = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    items = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [1.0, 0.0]]])
    return queries, items, torch.tensor([[10, 20], [30, 40]])


def test_sampled_softmax_by_hand():
    """Row 0 scores 1 (own), 0 (other positive), 0, 1 (negatives): −ln(e / (2e + 2)); row 1 the same by symmetry."""
    queries, items, rows = softmax_case()
    loss = losses.sampled_softmax(queries, items, rows, NONE, torch.ones(2, 2), 1.0)
    assert float(loss) == pytest.approx(math.log((2 * math.e + 2) / math.e))


def test_sampled_softmax_masks_accidental_hits_missing_candidates_and_what_the_query_has_seen():
    """Negative 20 is row 1's positive and 40 is missing; each query has seen the other's positive."""
    queries, items, _ = softmax_case()
    rows = torch.tensor([[10, 20], [20, -1]])
    seen = torch.tensor([[[True, False], [True, False]], [[True, True], [True, False]]])
    loss = losses.sampled_softmax(queries, items, rows, seen, torch.ones(2, 2), 1.0)
    assert float(loss) == pytest.approx((math.log((math.e + 1) / math.e) + 0.0) / 2)


def test_a_click_whose_positive_no_answer_can_hold_is_neither_counted_nor_a_negative():
    """Row 1's positive is missing: left is row 0 against the two negatives; with no positive at all, nothing."""
    queries, items, _ = softmax_case()
    rows = torch.tensor([[10, 20], [-1, 40]])
    loss = losses.sampled_softmax(queries, items, rows, NONE, torch.ones(2, 2), 1.0)
    assert float(loss) == pytest.approx(math.log((2 * math.e + 1) / math.e))
    assert float(losses.sampled_softmax(queries, items, rows.clamp(max=-1), NONE, torch.ones(2, 2), 1.0)) == 0


def test_the_logq_correction_divides_by_the_expected_count():
    """An item drawn twice as often as the others counts half: ln(e + 1 + 0.5 + e) − 1 for row 0."""
    queries, items, rows = softmax_case()
    expected = torch.tensor([[1.0, 2.0], [1.0, 1.0]])
    loss = losses.sampled_softmax(queries, items, rows, NONE, expected, 1.0)
    first = math.log(math.e + 0 + 1 + 0.5 + math.e) - 1
    second = math.log(math.e + 1 + 0.5 * math.e + 1) - 1
    assert float(loss) == pytest.approx((first + second) / 2)


def test_category_alignment_is_the_sum_over_covariances_whatever_the_sizes():
    """Groups of 1 to 90 items, one of them unknown (0), against eq. 3 written out."""
    generator = torch.Generator().manual_seed(0)
    sizes = [5, 1, 2, 3, 8, 9, 31, 32, 33, 90]
    categories = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    categories = categories[torch.randperm(len(categories), generator=generator)]
    vectors = torch.randn(len(categories), 16, generator=generator, requires_grad=True)
    loss = losses.category_alignment(vectors, categories)
    (gradient,) = torch.autograd.grad(loss, vectors)
    covariances = [torch.cov(vectors[categories == code].T) for code, size in enumerate(sizes) if code and size > 1]
    expected = sum((covariances[-1] - one).square().sum() for one in covariances)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(gradient, torch.autograd.grad(expected, vectors)[0])
