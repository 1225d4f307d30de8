"""The Adaptive-Mimic Mechanism (paper, section 2.2.2, eq. 2) as a fold over clicks.

For one positive pair the gradient of eq. 2's ``‖a_u − sg(p_v)‖²`` with respect to a_u is ``2 (a_u − p_v)``, so one SGD
step with learning rate α/2 is ``a_u ← a_u + α (p_v − a_u)``: an exponential moving average towards p_v. Training and
streaming both run :func:`fold`; a test holds it against autograd.
"""

import numpy as np

from model.scan import Groups, Scan, scan

Array = np.ndarray


def step_sizes(update_count: Array, alphas: tuple[float, ...]) -> Array:
    """``max(α, 1/(n+1))``: [N] clicks folded before → [N, M]. The first click counts fully."""
    return np.maximum(np.asarray(alphas, np.float32), 1.0 / (update_count[:, None] + 1.0)).astype(np.float32)


def fold(groups: Groups, a: Array, update_count: Array, targets: Array, alphas: tuple[float, ...]) -> Scan:
    """Fold clicks, in order within a key, into augmented vectors: eq. 2's SGD step, one click at a time.

    Args:
        groups: N clicks on G keys.
        a: [G, M·d] the keys' augmented vectors, their M averages side by side.
        update_count: [G] how many clicks each has folded so far.
        targets: [N, d] the other tower's output for each click; a stop-gradient by nature.
        alphas: M step sizes α.
    """
    size, dim = targets.shape
    eta = step_sizes(update_count[groups.key] + groups.rank, alphas)
    add = (eta[:, :, None] * targets[:, None, :]).reshape(size, len(alphas) * dim)
    return scan(groups, a, np.repeat(1 - eta, dim, axis=1), add)
