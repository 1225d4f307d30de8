"""The softmax over all items or a sample, and the paper's eq. 2 (mimic), eq. 3 (category alignment) and eq. 4."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

MASKED = -1e9  # a logit that no softmax sees; finite, so that no gradient is NaN
CELLS = 1 << 20  # scores that the softmax holds at a time


def mimic(augmented: Tensor, other: Tensor, pairs: int) -> Tensor:
    """Eq. 2 for one side: ``1/T Σ ‖a − sg(p)‖²`` over the positive pairs; negatives add 0.

    Args:
        augmented: [B, M, d] a_u (or a_v) of the positives.
        other: [B, d] the *other* tower's output for them: p_v for a_u, p_u for a_v. No gradient flows into it.
        pairs: T, the pairs of the batch, negatives included.
    """
    return (augmented - other.detach()[:, None, :]).square().sum() / pairs


def category_alignment(vectors: Tensor, categories: Tensor) -> Tensor:
    """Eq. 3: ``Σ ‖C(S_major) − C(S_i)‖²_F`` over the batch's categories, the largest being the major one.

    Args:
        vectors: [N, d] item representations.
        categories: [N] codes; 0 = unknown, left out.

    A category with fewer than two items has no covariance and is left out; with no second category the loss is 0.
    """
    codes, group, sizes = torch.unique(categories, return_inverse=True, return_counts=True)
    usable = torch.where((sizes >= 2) & (codes != 0), sizes, 0)
    if int((usable > 0).sum()) < 2:
        return vectors.new_zeros(())
    weights = sizes.to(vectors.dtype)
    means = vectors.new_zeros(len(sizes), vectors.shape[1]).index_add_(0, group, vectors) / weights[:, None]
    # Rows so scaled that a category's covariance is the plain product of its rows; those that do not count are zero.
    scale = torch.where(usable > 0, (weights - 1).clamp(min=1).rsqrt(), 0)
    rows = (vectors - means[group]) * scale[group, None]
    largest = rows[group == usable.argmax()]
    major = largest.T @ largest
    # Σ ‖M − C_i‖² = K ‖M‖² − 2 ⟨M, Σ C_i⟩ + Σ ‖C_i‖², where Σ C_i is one product over all rows.
    cross = (major * (rows.T @ rows)).sum()
    return (usable > 0).sum() * major.square().sum() - 2 * cross + _squared_norms(rows, group, usable)


def _squared_norms(rows: Tensor, group: Tensor, sizes: Tensor) -> Tensor:
    """``Σ_i ‖R_iᵀ R_i‖²_F`` over the groups R_i of rows [N, d]; ``sizes`` [G] is 0 for those to leave out.

    Groups of like size share a padded block: padded to the largest, many small ones would cost as much as it does each.
    A small block takes ``R_i R_iᵀ``, which has the same norm and is smaller.
    """
    order = torch.argsort(group, stable=True)
    ordered, counts = group[order], torch.bincount(group)
    place = torch.arange(len(order)) - (torch.cumsum(counts, 0) - counts)[ordered]
    total, low = rows.new_zeros(()), 0
    for high in (8, 32, int(sizes.max())):
        chosen = (sizes > low) & (sizes <= high)
        here = chosen[ordered]
        if count := int(chosen.sum()):
            slot = (torch.cumsum(chosen, 0) - 1)[ordered[here]]
            padded = rows.new_zeros(count * high, rows.shape[1])
            padded = padded.index_copy(0, slot * high + place[here], rows[order[here]]).view(count, high, -1)
            turned = padded.transpose(1, 2)
            total = total + (padded @ turned if high < rows.shape[1] else turned @ padded).square().sum()
        low = high
    return total


def binary_cross_entropy(
    queries: Tensor, items: Tensor, exists: Tensor, temperature: float, weights: Tensor | None = None
) -> Tensor:
    """Eq. 4 over each positive and its own negatives.

    Args:
        queries: [B, d] p_u. items: [B, 1+S, d] p_v, the positive first. exists: [B, 1+S] whether there is a candidate.
        temperature: multiplies the scores (1: eq. 4 to the letter).
        weights: [B] of the positives and their negatives; None: 1.
    """
    logits = temperature * (items @ queries[:, :, None])[:, :, 0]
    labels = torch.zeros_like(logits)
    labels[:, 0] = 1
    each = None if weights is None else weights[:, None].expand_as(logits)[exists]
    return F.binary_cross_entropy_with_logits(logits[exists], labels[exists], each)


def softmax(
    queries: Tensor, items: Tensor, positive: Tensor, seen: tuple[Tensor, Tensor], temperature: float = 1.0,
    bias: tuple[Tensor, Tensor] | None = None, weights: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Cross entropy of each positive against all candidates; the mean over the rows.

    Args:
        queries: [B, d] p_u. items: [U, d] p_v of the distinct candidates.
        positive: [B] columns of the positives.
        seen: Rows, ascending, and columns of candidates that a row's query has clicked, which are no negatives of it.
        bias: The logQ correction of a sample. [U] log of how often a candidate stands in the batch, less log of how
            often it was expected to; [B] the same of the positives' own cells.
        weights: [B] of the rows' losses; None: 1.
    """
    share = torch.full((len(queries),), 1 / len(queries), dtype=queries.dtype)
    if weights is not None:
        share = share * weights
    loss: Tensor = _Softmax.apply(queries, items, positive, seen, temperature, bias, share)
    return loss


class _Softmax(torch.autograd.Function):
    """Some rows at a time, whose gradients follow at once: [B, U] is never held, and a part stays in the cache."""

    @staticmethod
    def forward(
        ctx: Any, queries: Tensor, items: Tensor, positive: Tensor, seen: tuple[Tensor, Tensor], temperature: float,
        bias: tuple[Tensor, Tensor] | None, share: Tensor,
    ) -> Tensor:  # fmt: skip
        size = max(1, CELLS // max(len(items), 1))
        starts = torch.arange(0, len(queries) + size, size)
        cuts = torch.searchsorted(seen[0], starts).tolist()
        to_queries, to_items, loss = torch.empty_like(queries), torch.zeros_like(items), queries.new_zeros(())
        for number, start in enumerate(starts[:-1].tolist()):
            part = slice(start, start + size)
            q, column, weight = temperature * queries[part], positive[part], share[part, None]
            row = torch.arange(len(q))
            scores = q @ items.T if bias is None else torch.addmm(bias[0], q, items.T)
            own = scores[row, column]
            if bias is not None:
                own = own - bias[0][column] + bias[1][part]
            hidden = slice(cuts[number], cuts[number + 1])
            scores[seen[0][hidden] - start, seen[1][hidden]] = MASKED
            scores[row, column] = own
            top = scores.amax(1, keepdim=True)
            total = scores.sub_(top).exp_().sum(1, keepdim=True)
            loss += ((total.log() + top - own[:, None]) * weight).sum()
            scores.mul_(weight / total)
            scores[row, column] -= weight[:, 0]
            torch.mm(scores, items, out=to_queries[part])
            to_items.addmm_(scores.T, q)
        ctx.save_for_backward(to_queries.mul_(temperature), to_items)
        return loss

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        to_queries, to_items = ctx.saved_tensors
        return grad * to_queries, grad * to_items, None, None, None, None, None
