"""A small map: item and query vectors in the plane that keeps most of the items' variance (PCA)."""

from dataclasses import dataclass

import numpy as np

Array = np.ndarray


@dataclass(frozen=True)
class Plane:
    """Two directions [2, d] and the clouds' centres [d]; fixed for a bundle, so that what moves on the map has moved.

    The two towers' outputs lie apart on the sphere, all queries on one side and all items on the other, which says
    nothing about any one of them. So the map lays one centre on the other.
    """

    items: Array
    queries: Array
    directions: Array

    def of_items(self, vectors: Array) -> Array:
        """Item vectors, or averages of them [N, d] → [N, 2]."""
        return (vectors - self.items) @ self.directions.T

    def of_queries(self, vectors: Array) -> Array:
        """Query vectors [N, d] → [N, 2]."""
        return (vectors - self.queries) @ self.directions.T


def fit_plane(items: Array, queries: Array) -> Plane:
    """The plane of the two largest principal components of item vectors [N, d], with the centre of queries [M, d]."""
    center, other = (cloud.mean(axis=0) if len(cloud) else np.zeros(cloud.shape[1]) for cloud in (items, queries))
    _, _, directions = np.linalg.svd(items - center, full_matrices=False)
    plane = np.zeros((2, items.shape[1]), np.float32)
    plane[: len(directions[:2])] = directions[:2]
    return Plane(center, other, plane)
