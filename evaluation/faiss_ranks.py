"""The ranks of an evaluation a second time, through the index that the service searches instead of all scores."""

import numpy as np

from evaluation.metrics import MISS
from evaluation.ranks import Vectors
from model.settings.serving import IndexConfig
from serving.index.live_index import LiveIndex

Array = np.ndarray
DEPTH = 100  # an answer is this long; a rank beyond it is a miss


class FaissRanks:
    """Keeps a Faiss index with inverted lists at a scorer's item vectors, and searches it for each click.

    ``parts``: one array of ranks a block.
    """

    def __init__(self, config: IndexConfig | None = None) -> None:
        self.config = config or IndexConfig(kind="ivf")
        self.parts: list[Array] = []
        self.index: LiveIndex | None = None
        self.items = np.empty((0, 0), np.float32)

    def block(self, vectors: Vectors, targets: Array, exists: Array, seen: tuple[Array, Array] | None) -> None:
        """Bring the index to these vectors and rank each click's item [B] among the items that exist by then."""
        known = int(np.flatnonzero(exists.any(axis=0))[-1]) + 1 if exists.any() else 1
        index = self._update(vectors, known)
        size, count, dim = vectors.queries.shape
        rows, columns = seen or (np.empty(0, np.int64), np.empty(0, np.int64))
        absent_row, absent = np.nonzero(~exists[:, :known])
        rows, columns = np.r_[rows, absent_row], np.r_[columns, absent]
        order = np.argsort(rows, kind="stable")
        bounds = np.searchsorted(rows[order], np.arange(size + 1))
        exclude = [columns[order][bounds[row] : bounds[row + 1]] for row in range(size) for _ in range(count)]
        answers, scores = index.search(vectors.queries.reshape(-1, dim), DEPTH, exclude)
        self.parts.append(_ranks(answers.reshape(size, -1), scores.reshape(size, -1), targets))

    def _update(self, vectors: Vectors, known: int) -> LiveIndex:
        """The index with the current vectors of the first ``known`` items: later rows do not exist yet."""
        items = np.ascontiguousarray(vectors.items[:known], np.float32)
        if self.index is None:
            queries = np.ascontiguousarray(vectors.queries[:, 0], np.float32)
            self.index = LiveIndex(items, self.config, queries)
        else:
            changed = np.ones(known, bool)
            both = min(known, len(self.items))
            changed[:both] = (items[:both] != self.items[:both]).any(axis=1)
            rows = np.flatnonzero(changed)
            self.index.upsert(rows, items[rows])
        self.items = items.copy()
        return self.index


def _ranks(answers: Array, scores: Array, targets: Array) -> Array:
    """The target's place among its row's answers [B, K·n], of which the best score of an item counts."""
    hit = answers == targets[:, None]
    best = np.where(hit, scores, -np.inf).max(axis=1)
    place = np.empty(len(targets), np.int64)
    for row in range(len(targets)):
        better = answers[row][(scores[row] >= best[row]) & (answers[row] >= 0) & ~hit[row]]
        place[row] = 1 + len(np.unique(better))
    return np.where(hit.any(axis=1) & (place <= DEPTH), place, MISS)
