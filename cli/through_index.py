"""The ranks of an evaluation a second time, through the index that the service searches instead of all scores."""

import numpy as np

from serving.config import IndexConfig
from serving.live_index import LiveIndex
from training.evaluation import MISS, Vectors

Array = np.ndarray
DEPTH = 100  # an answer is this long; a rank beyond it is a miss


class ThroughIndex:
    """Keeps a Faiss index with inverted lists at a scorer's item vectors, and searches it for each click.

    ``found``: one array of ranks a block.
    """

    def __init__(self, config: IndexConfig | None = None) -> None:
        self.config = config or IndexConfig(kind="ivf")
        self.found: list[Array] = []
        self.index: LiveIndex | None = None
        self.held = np.empty((0, 0), np.float32)

    def block(self, vectors: Vectors, targets: Array, existing: Array, hidden: tuple[Array, Array] | None) -> None:
        """Bring the index to these vectors and rank each click's item [B] among the items that exist by then."""
        self._update(vectors, int(existing.max()))
        size, count, dim = vectors.queries.shape
        rows, columns = hidden or (np.empty(0, np.int64), np.empty(0, np.int64))
        bounds = np.searchsorted(rows, np.arange(size + 1), sorter=(order := np.argsort(rows, kind="stable")))
        columns = columns[order]
        exclude = [
            np.r_[columns[bounds[row] : bounds[row + 1]], np.arange(existing[row], len(self.held))]
            for row in range(size)
            for _ in range(count)
        ]
        found, scores = self.index.search(vectors.queries.reshape(-1, dim), DEPTH, exclude)
        self.found.append(_ranks(found.reshape(size, -1), scores.reshape(size, -1), targets))

    def _update(self, vectors: Vectors, existing: int) -> None:
        items = np.ascontiguousarray(vectors.items[:existing], np.float32)
        if self.index is None:
            queries = np.ascontiguousarray(vectors.queries[:, 0], np.float32)
            self.index = LiveIndex(items, self.config, queries)
        else:
            changed = np.ones(existing, bool)
            changed[: len(self.held)] = (items[: len(self.held)] != self.held).any(axis=1)
            changed = np.flatnonzero(changed)
            self.index.upsert(changed, items[changed])
        self.held = items.copy()


def _ranks(found: Array, scores: Array, targets: Array) -> Array:
    """The target's place among its row's answers [B, K·n], of which the best score of an item counts."""
    hit = found == targets[:, None]
    best = np.where(hit, scores, -np.inf).max(axis=1)
    place = np.empty(len(targets), np.int64)
    for row in range(len(targets)):
        better = found[row][(scores[row] >= best[row]) & (found[row] >= 0) & ~hit[row]]
        place[row] = 1 + len(np.unique(better))
    return np.where(hit.any(axis=1) & (place <= DEPTH), place, MISS)
