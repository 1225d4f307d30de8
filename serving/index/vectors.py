"""A matrix of vectors that grows without copying what it began with."""

import numpy as np

from model.arrays import writable

Array = np.ndarray
LARGEST = 1e15  # squares of distances must be finite as a float32: at an infinite one Faiss aborts the process


def searchable(vectors: Array) -> Array:
    """[N] whether all numbers of vectors [N, d] are finite, and none is larger than :data:`LARGEST`."""
    return (vectors.max(1, initial=0) <= LARGEST) & (vectors.min(1, initial=0) >= -LARGEST)


class GrowingMatrix:
    """Rows of float32 vectors. A bundle's mapped file stays mapped; rows beyond it lie in a tail that doubles.

    Not safe under threads by itself.
    """

    def __init__(self, vectors: Array):
        self._base = writable(vectors.astype(np.float32, copy=False))
        self._tail = np.zeros((0, vectors.shape[1]), np.float32)
        self._rows = len(vectors)

    def __len__(self) -> int:
        return self._rows

    @property
    def dimension(self) -> int:
        return self._base.shape[1]

    def grow(self, rows: int) -> None:
        """Have at least so many rows; new ones are zero."""
        needed = rows - len(self._base)
        if needed > len(self._tail):
            tail = np.zeros((max(needed, 2 * len(self._tail), 1_024), self.dimension), np.float32)
            tail[: len(self._tail)] = self._tail
            self._tail = tail
        self._rows = max(self._rows, rows)

    def get(self, rows: Array) -> Array:
        """Copies [N, d] of rows [N] that exist."""
        late = rows >= len(self._base)
        if not late.any():
            return self._base[rows]
        vectors = np.empty((len(rows), self.dimension), np.float32)
        vectors[~late] = self._base[rows[~late]]
        vectors[late] = self._tail[rows[late] - len(self._base)]
        return vectors

    def put(self, rows: Array, vectors: Array) -> None:
        late = rows >= len(self._base)
        self._base[rows[~late]] = vectors[~late]
        self._tail[rows[late] - len(self._base)] = vectors[late]

    def scores(self, queries: Array) -> Array:
        """Inner products [Q, rows] with queries [Q, d]."""
        tail = self._tail[: self._rows - len(self._base)]
        return np.concatenate([queries @ self._base.T, queries @ tail.T], axis=1)
