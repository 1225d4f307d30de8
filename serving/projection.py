"""A small map: item and query vectors in the plane that keeps most of the items' variance (PCA)."""

from dataclasses import dataclass

import numpy as np

Array = np.ndarray


@dataclass(frozen=True)
class Plane:
    """center [d] and two directions [2, d]; fixed for a bundle, so that what moves on the map has moved."""

    center: Array
    directions: Array

    def project(self, vectors: Array) -> Array:
        """[N, d] → [N, 2]."""
        return (vectors - self.center) @ self.directions.T


def fit_plane(vectors: Array) -> Plane:
    """The plane of the two largest principal components of ``vectors`` [N, d]."""
    if len(vectors) == 0:
        return Plane(np.zeros(vectors.shape[1], np.float32), np.eye(2, vectors.shape[1], dtype=np.float32))
    center = vectors.mean(axis=0)
    _, _, directions = np.linalg.svd(vectors - center, full_matrices=False)
    plane = np.zeros((2, vectors.shape[1]), np.float32)
    plane[: len(directions[:2])] = directions[:2]
    return Plane(center, plane)
