"""Hit rates and the mean reciprocal rank: one definition for evaluation, demo and report."""

import numpy as np

Array = np.ndarray


def hit_rates(ranks: Array, cutoffs: tuple[int, ...] = (50, 100)) -> dict[str, float]:
    """HR at each cutoff (``hr50``, …) and ten times the mean of 1/rank (``mrr10``) of [N] ranks, which begin at 1.

    Rank 0 is a miss. All are 0 if N is 0.
    """
    hit, size = ranks > 0, max(1, len(ranks))
    reciprocal = np.divide(1.0, ranks, out=np.zeros(len(ranks)), where=hit)
    rates = {f"hr{cutoff}": float((hit & (ranks <= cutoff)).sum() / size) for cutoff in cutoffs}
    return rates | {"mrr10": float(10 * reciprocal.sum() / size)}
