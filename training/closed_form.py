"""EASE^R with recency as low-rank dimensions: what the closed form says of a query is one more affine memory.

EASE^R (Steck, 2019) scores an item by ``Σ_k r^k B[item_k, item]``, with ``B = I − P diag(1/P)``, ``P = (XᵀX + λI)⁻¹``
and X the query-item matrix. With ``B ≈ U Vᵀ`` that is ``⟨c, V[item]⟩``, where a click folds ``c ← r c + U[clicked]``.
"""

import numpy as np
from scipy import sparse
from scipy.linalg import cho_factor, cho_solve
from scipy.sparse.linalg import svds

from model.settings.model import ClosedFormConfig
from training.training_set import AT_ONCE, TrainingSet

Array = np.ndarray


def item_weights(data: TrainingSet, config: ClosedFormConfig) -> tuple[Array, Array]:
    """The items that are solved for [n] (rows, sorted), and B [n, n] float32."""
    count = np.zeros(len(data.items), np.int64)
    for block in data.blocks(AT_ONCE):
        count += np.bincount(block.clicks.items, minlength=len(count))
    chosen = np.sort(np.argsort(-count, kind="stable")[: min(config.max_items, int((count > 0).sum()))])
    place = np.full(len(data.items), -1)
    place[chosen] = np.arange(len(chosen))
    queries, items = [], []
    for block in data.blocks(AT_ONCE):
        kept = place[block.clicks.items] >= 0
        queries.append(block.clicks.queries[kept])
        items.append(place[block.clicks.items[kept]])
    pairs = np.concatenate(queries), np.concatenate(items)
    shape = len(data.queries), len(chosen)
    x = sparse.csr_matrix((np.ones(len(pairs[0]), np.float32), pairs), shape)
    x.data[:] = 1  # a repeated click counts once
    gram = (x.T @ x).toarray().astype(np.float32)
    gram[np.diag_indices_from(gram)] += config.l2
    inverse = cho_solve(cho_factor(gram, overwrite_a=True), np.eye(len(chosen), dtype=np.float32), overwrite_b=True)
    b = -inverse / np.diag(inverse)[None, :]
    np.fill_diagonal(b, 0)
    return chosen, b


def closed_form(data: TrainingSet, config: ClosedFormConfig) -> tuple[Array, Array]:
    """U and V, each [I+1, rank]; row 0 is an item that was not solved for: it adds nothing, and answers an average."""
    chosen, b = item_weights(data, config)
    rank = min(config.rank, len(chosen))
    if len(chosen) <= 2 * rank:
        u, s, vt = (part[..., :rank] if k < 2 else part[:rank] for k, part in enumerate(np.linalg.svd(b)))
    else:
        u, s, vt = svds(b, rank, rng=0)
    read, answered = (np.zeros((len(data.items) + 1, config.rank), np.float32) for _ in range(2))
    read[chosen + 1, :rank] = u * np.sqrt(s)
    answered[:, :rank] = (vt.T * np.sqrt(s)).mean(0)
    answered[chosen + 1, :rank] = vt.T * np.sqrt(s)
    return read, answered
