"""The towers of learned memories in NumPy: one inner product of three or four parts.

    query  [ q̂           ; W_a q̂ + W_b s     ; q_d(s) ; w·c      ]
    item   [ ê            ; gate(f) ⊙ a_v / T   ; g(f)/T ; V[item]/T ]

ê is the item's embedding (its id's, and the mean of its categories'), q̂ the query's, both of unit length; s the query
tower's hidden layer; f the item's activity and age; c and V the closed form; T the temperature, by which the loss
multiplies scores. The first and the last part of an item move once a night, the others with the clicks.
"""

import numpy as np

from model.features import Inputs, InputSpec
from model.memory import LearnedMemory, sigmoid, silu
from model.settings.model import DATConfig

Array = np.ndarray


class MemoryQueryTower:
    """A query's memory and features → its vector.

    Args:
        weights: The side's weights by name.
    """

    def __init__(self, weights: dict[str, Array], spec: InputSpec, config: DATConfig):
        self.features, self.mean, self.std = weights["features.weight"], weights["dense_mean"], weights["dense_std"]
        self.weights, self.ids = weights, None
        memory = {n.removeprefix("memory."): w for n, w in weights.items() if n.startswith("memory.")}
        self.memory = LearnedMemory(memory, config)
        self.known = config.query_state_dim - config.closed_rank
        self.weight = config.closed_form.weight
        self.reads = weights["hidden.weight"].shape[1]
        expected = self.known + self.features.shape[1] + spec.dense_width + 5
        if self.reads != expected:
            raise ValueError(f"the layers read {self.reads} inputs, and the settings make {expected}")

    def __call__(self, inputs: Inputs, augmented: Array) -> Array:
        """N inputs and their augmented vectors [N, A_u] → [N, D] float32."""
        assert inputs.gap is not None
        state = augmented[:, : self.known] * self.weights["scale"]
        parts = state, mean_of_codes(self.features, inputs.codes), (inputs.dense - self.mean) / self.std, inputs.gap
        read = np.concatenate(parts, axis=1).astype(np.float32, copy=False)
        hidden = silu(self._linear("hidden", read))
        q = unit(self._linear("head", hidden) + read @ self.weights["skip.weight"].T)
        vectors = [q]
        if "second_item.weight" in self.weights:
            vectors.append(q @ self.weights["second_item.weight"].T + hidden @ self.weights["second_hidden.weight"].T)
        vectors += [self._linear("activity", hidden), augmented[:, self.known :] * np.float32(self.weight)]
        return np.concatenate(vectors, axis=1)

    def _linear(self, name: str, values: Array) -> Array:
        return values @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]


class MemoryItemTower:
    """An item's embedding, its a_v and its activity → its vector.

    Args:
        weights: The side's weights by name.
    """

    def __init__(self, weights: dict[str, Array], spec: InputSpec, config: DATConfig):
        self.ids, self.features, self.weights = weights["ids.weight"], weights["features.weight"], weights
        self.mean, self.std, self.temperature = weights["dense_mean"], weights["dense_std"], config.temperature
        self.closed = weights.get("closed.weight")
        self.closed_reading = weights.get("closed_reading.weight")
        if self.ids.shape[1] != config.memory.dim or (self.closed is None) != (config.closed_rank == 0):
            raise ValueError("the item tower's weights are not of the settings' shape")
        if weights["activity.0.weight"].shape[1] != spec.dense_width:
            raise ValueError(f"the item tower does not read {spec.dense_width} numbers of activity")

    def __call__(self, inputs: Inputs, augmented: Array) -> Array:
        """N inputs and their a_v [N, A_v] → [N, D] float32."""
        parts = [unit(self.embed(inputs))]
        activity = silu(self._linear("activity.0", (inputs.dense - self.mean) / self.std))
        if augmented.shape[1]:
            parts.append(sigmoid(self._linear("gate", activity)) * augmented / self.temperature)
        parts.append(self._linear("activity.2", activity) / self.temperature)
        if self.closed is not None:
            parts.append(self.closed[inputs.rows] / self.temperature)
        return np.concatenate(parts, axis=1).astype(np.float32, copy=False)

    def embed(self, inputs: Inputs) -> Array:
        """e(v) [N, d]: of the id, and the mean of the categories."""
        return self.ids[inputs.rows] + mean_of_codes(self.features, inputs.codes)

    def read(self, inputs: Inputs) -> Array:
        """What a memory reads of N items: [N, X]. It does not move with the clicks."""
        if self.closed_reading is None:
            return self.embed(inputs)
        return np.concatenate([self.embed(inputs), self.closed_reading[inputs.rows]], axis=1)

    def _linear(self, name: str, values: Array) -> Array:
        return values @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]


def mean_of_codes(table: Array, codes: Array) -> Array:
    """[N, E]: the mean of the embeddings of the codes [N, C] that are filled; the padding's row is zero."""
    if not codes.shape[1]:
        return np.zeros((len(codes), table.shape[1]), np.float32)
    return table[codes].sum(1) / np.maximum((codes > 0).sum(1, keepdims=True), 1).astype(np.float32)


def unit(values: Array) -> Array:
    return values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)
