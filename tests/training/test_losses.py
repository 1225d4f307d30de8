"""The losses against numbers worked out by hand."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

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


def test_weights_scale_the_cross_entropy_of_a_positive_and_its_negatives():
    """Row 0 has one candidate of score 0, row 1 two: ln 2 three times, of which the last two count three times."""
    nothing, exists = torch.zeros(2, 1), torch.tensor([[True, False], [True, True]])
    loss = losses.binary_cross_entropy(nothing, torch.zeros(2, 2, 1), exists, 1.0, torch.tensor([1.0, 3.0]))
    assert float(loss) == pytest.approx(math.log(2) * (1 + 3 + 3) / 3)


def softmax(bias=(0, 0, 0, 0), own=(0, 0), seen=((0, 0, 0, 0), (0, 0, 0, 0)), weights=None) -> float:
    """The loss of two clicks, on the candidates 0 and 1, with two more candidates; all scores are 0 or 1."""
    queries = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    items = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [1.0, 0.0]])
    logq = torch.tensor(bias, dtype=torch.float32), torch.tensor(own, dtype=torch.float32)
    cells = torch.nonzero(torch.tensor(seen), as_tuple=True)
    loss = losses.softmax(queries, items, torch.tensor([0, 1]), cells, 1.0, logq, weights)
    return float(loss)


def test_the_softmax_by_hand():
    """Row 0 scores 1 (own), 0 (the other's), 0, 1: −ln(e / (2e + 2)); row 1 the same by symmetry."""
    assert softmax() == pytest.approx(math.log((2 * math.e + 2) / math.e))


def test_the_softmax_masks_what_the_query_has_seen_and_never_its_own_positive():
    seen = ((1, 1, 0, 1), (1, 1, 1, 1))  # of row 0 the candidate 2 is left, of row 1 nothing
    assert softmax(seen=seen) == pytest.approx((math.log((math.e + 1) / math.e) + 0) / 2)


def test_weights_scale_the_softmax_of_a_click():
    """Masked as above, row 1 costs nothing, so only row 0's weight tells."""
    seen = ((1, 1, 0, 1), (1, 1, 1, 1))
    for weight in (0.5, 2.0):
        weighed = softmax(seen=seen, weights=torch.tensor([weight, 7.0]))
        assert weighed == pytest.approx(weight * math.log((math.e + 1) / math.e) / 2)


def test_the_logq_correction_divides_by_the_expected_count():
    """Candidate 3 was drawn twice as often as expected: it counts double. Row 1's own was expected twice: half."""
    double, half = math.log(2), -math.log(2)
    first = math.log(math.e + 1 + 1 + 2 * math.e) - 1
    second = math.log(1 + math.e / 2 + math.e + 2) - math.log(math.e / 2)
    assert softmax(bias=(0, 0, 0, double), own=(0, half)) == pytest.approx((first + second) / 2)


@pytest.mark.long
@pytest.mark.parametrize("sampled", [False, True])
def test_the_softmax_in_parts_is_torchs_cross_entropy_and_has_its_gradient(sampled, monkeypatch):
    """23 rows, four at a time, one of them without anything seen, against torch over the whole table."""
    monkeypatch.setattr(losses, "CELLS", 4 * 30)
    random = torch.Generator().manual_seed(0)
    queries, items = (torch.randn(size, 6, generator=random).double().requires_grad_() for size in (23, 30))
    positive = torch.randint(30, (23,), generator=random)
    seen = torch.rand(23, 30, generator=random) < 0.3
    seen[5] = False
    weights = torch.rand(23, generator=random).double()
    bias = (torch.randn(30, generator=random).double(), torch.randn(23, generator=random).double()) if sampled else None
    loss = losses.softmax(queries, items, positive, torch.nonzero(seen, as_tuple=True), 2.0, bias, weights)
    scores, own = 2 * queries @ items.T, torch.arange(23)
    shift = torch.zeros(23, 30).double() if bias is None else bias[0].expand(23, 30).clone()
    shift = shift.masked_fill(seen, losses.MASKED)
    shift[own, positive] = 0 if bias is None else bias[1]
    expected = (F.cross_entropy(scores + shift, positive, reduction="none") * weights).mean()
    torch.testing.assert_close(loss, expected)
    for got, wanted in zip(
        torch.autograd.grad(loss, (queries, items)), torch.autograd.grad(expected, (queries, items)), strict=True
    ):
        torch.testing.assert_close(got, wanted)


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
