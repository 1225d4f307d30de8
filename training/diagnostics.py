"""What each epoch of a training did, and the watch for collapse: items that all look alike."""

from dataclasses import dataclass

import numpy as np

Array = np.ndarray


@dataclass(frozen=True)
class EpochReport:
    """What one epoch did: losses (means over its batches), and whether the item vectors are alive.

    item_rank: effective rank of the items' vectors, ``exp(entropy of the spectrum)``: between 1 and d · dead_units: the
    share of output units that are the same for every item.
    """

    epoch: int
    loss: float
    loss_p: float
    loss_u: float
    loss_v: float
    loss_ca: float
    item_rank: float
    dead_units: float
    seconds: float

    @property
    def collapsed(self) -> bool:
        """All items look alike: the scores are ties and the model is worthless."""
        return self.item_rank < 1.1 or self.dead_units > 0.5 or not np.isfinite(self.loss)


def health(vectors: Array) -> tuple[float, float]:
    """Effective rank of [N, d] vectors, and their share of dead units."""
    spectrum = np.linalg.svd(vectors - vectors.mean(0), compute_uv=False) ** 2
    share = spectrum / max(spectrum.sum(), 1e-30)
    rank = float(np.exp(-(share * np.log(np.maximum(share, 1e-30))).sum())) if spectrum.sum() > 1e-9 else 1.0
    return rank, float((vectors.std(0) < 1e-6).mean())
