"""Whether a difference is more than luck: paired tests over seeds, and over test clicks."""

import numpy as np
from scipy import stats

Array = np.ndarray


def paired(ours: Array, theirs: Array) -> float:
    """Two-sided p of Student's paired t-test on [N] and [N] values; a model that ran once counts for every seed.

    NaN with fewer than two pairs. Differences that are all the same leave no doubt: 0, or 1 where they are 0.
    """
    ours, theirs = np.broadcast_arrays(np.asarray(ours, float), np.asarray(theirs, float))
    if len(ours) < 2:
        return float("nan")
    difference = ours - theirs
    if np.ptp(difference) < 1e-12 * max(1.0, np.abs(difference).max()):
        return 1.0 if abs(difference[0]) < 1e-12 else 0.0
    return float(stats.ttest_rel(ours, theirs).pvalue)


def hits(ranks: list[Array], top: int) -> Array:
    """For each of N test clicks, in how many of the runs its item was among the first ``top``: a share, [N]."""
    return np.mean([found <= top for found in ranks], axis=0)
