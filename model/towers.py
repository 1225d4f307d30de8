"""The two towers (paper, section 2.2, eq. 1) in NumPy: what day and answer run, and what is measured.

``training/dat.py`` trains the same function in torch, under the same names of weights; a test holds the two together.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from model.features import Inputs, InputSpec
from model.memory import Memory, MovingAverages
from model.memory_towers import MemoryItemTower, MemoryQueryTower
from model.settings.model import DATConfig

Array = np.ndarray


class Tower:
    """Maps one side's inputs to its representation p on the unit sphere.

    Args:
        weights: The side's weights by name, such as ``ids.weight``.

    Raises:
        KeyError, ValueError: a weight is missing, or is not of the settings' shape.
    """

    def __init__(self, weights: dict[str, Array], spec: InputSpec, config: DATConfig):
        self.slots = [field.slots for field in spec.categories]
        self.ids, self.features = weights["ids.weight"], weights["features.weight"]
        self.mean, self.std = weights["dense_mean"], weights["dense_std"]
        self.recent = weights.get("recent.items.weight")
        keep = 1 - np.asarray(config.recent_alphas, np.float32)[:, None]
        self._recent_weight = keep ** np.arange(config.history, dtype=np.float32)
        numbers = sorted({int(name.split(".")[1]) for name in weights if name.startswith("layers.")})
        self._layers = [(weights[f"layers.{n}.weight"].T, weights[f"layers.{n}.bias"]) for n in numbers]
        self._relu_last = config.relu_head
        recent = len(config.recent_alphas) if self.recent is not None else 0
        width = config.tower.embedding_dim * (1 + len(self.slots) + recent) + spec.dense_width + config.query_state_dim
        shape, expected = (self._layers[0][0].shape[0], self._layers[-1][0].shape[1]), (width, config.tower.output_dim)
        if shape != expected:
            raise ValueError(
                f"the layers map {shape[0]} inputs to {shape[1]}, and the settings {width} to {expected[1]}"
            )
        shortcut = weights.get("shortcut.weight")
        self._shortcut = None if shortcut is None else shortcut.T

    def __call__(self, inputs: Inputs, augmented: Array) -> Array:
        """N inputs and their augmented vectors [N, A] → p [N, d] float32, unit length."""
        parts, at = [self.ids[inputs.rows]], 0
        for slots in self.slots:
            codes = inputs.codes[:, at : at + slots]
            filled = np.maximum((codes > 0).sum(1, keepdims=True), 1) if slots > 1 else 1
            parts.append(self.features[codes].sum(1) / filled)  # the padding's row is zero
            at += slots
        if self.recent is not None:
            assert inputs.recent is not None
            weight = self._recent_weight * (inputs.recent > 0)[:, None, :]
            weight /= np.maximum(weight.sum(2, keepdims=True), 1e-12)
            flat = self._recent_weight.shape[0] * self.recent.shape[1]
            parts.append((weight @ self.recent[inputs.recent]).reshape(len(inputs), flat))
        parts += [(inputs.dense - self.mean) / self.std, augmented]
        z = straight = np.concatenate(parts, axis=1).astype(np.float32, copy=False)
        for number, (weight, bias) in enumerate(self._layers, 1):
            z = z @ weight + bias
            if number < len(self._layers) or self._relu_last:
                z = np.maximum(z, 0)
        if self._shortcut is not None:
            z = z + straight @ self._shortcut
        return z / np.maximum(np.linalg.norm(z, axis=1, keepdims=True), 1e-12)


class TowerFunction(Protocol):
    """A tower: inputs [N] and augmented vectors [N, A] → [N, D]."""

    def __call__(self, inputs: Inputs, augmented: Array) -> Array: ...


@dataclass(frozen=True)
class Towers:
    """Both towers, and the memory of the queries. ``score(u, v) = ⟨query(u), item(v)⟩``.

    weights: by name, such as ``query_tower.ids.weight``.
    """

    weights: dict[str, Array]
    query: Tower | MemoryQueryTower
    item: Tower | MemoryItemTower
    memory: Memory

    @classmethod
    def of(cls, weights: dict[str, Array], query: InputSpec, item: InputSpec, config: DATConfig) -> "Towers":
        """The towers of a configuration's preset.

        Raises:
            KeyError, ValueError: a weight is missing, or is not of the settings' shape.
        """
        of_query, of_item = (
            {n.removeprefix(f"{side}_tower."): w for n, w in weights.items() if n.startswith(side)}
            for side in ("query", "item")
        )
        if config.preset == "memories":
            tower = MemoryQueryTower(of_query, query, config)
            return cls(weights, tower, MemoryItemTower(of_item, item, config), tower.memory)
        averages = MovingAverages(config.ema_alphas)
        return cls(weights, Tower(of_query, query, config), Tower(of_item, item, config), averages)

    @property
    def reads_vectors(self) -> bool:
        """Whether the memory reads p_v, which moves with the clicks, rather than the item's embedding."""
        return not isinstance(self.item, MemoryItemTower)

    def read(self, inputs: Inputs, augmented: Array) -> Array:
        """What the memory reads of N items: [N, X]."""
        return self.item.read(inputs) if isinstance(self.item, MemoryItemTower) else self.item(inputs, augmented)
