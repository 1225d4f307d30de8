"""How a query's augmented vector takes a click in: an affine map of its state, ``a ← (1 − z) ⊙ a + z ⊙ h``.

z and h are functions of the clicked item and of the time since the click before, never of a: one click is O(1), and a
batch is one scan (:mod:`model.scan`). With z = α and h = p_v it is the paper's Adaptive-Mimic Mechanism
(:mod:`model.fold`); :class:`LearnedMemory` starts close to there and learns z and h. ``training/memory.py`` trains the
same function in torch, under the same names of weights; a test holds the two together.
"""

from typing import Protocol

import numpy as np

from model.fold import fold
from model.scan import Groups, Scan, scan
from model.settings.model import DATConfig

Array = np.ndarray
GAP_WIDTH = 5


class Memory(Protocol):
    """The fold of clicks into queries' augmented vectors."""

    def fold(self, groups: Groups, a: Array, update_count: Array, readings: Array, gap: Array | None) -> Scan:
        """Fold N clicks, in order within a key.

        Args:
            groups: N clicks on G keys. a: [G, A]. update_count: [G] clicks folded before.
            readings: [N, X] what is read of the clicked items. gap: [N, 5], see :func:`gap_inputs`.
        """


class MovingAverages:
    """The point-in-time AMM: averages of p_v (eq. 2)."""

    def __init__(self, alphas: tuple[float, ...]):
        self.alphas = alphas

    def fold(self, groups: Groups, a: Array, update_count: Array, readings: Array, gap: Array | None) -> Scan:
        return fold(groups, a, update_count, readings, self.alphas)


class LearnedMemory:
    """Up to three affine layers, side by side in one state.

    The first reads the item's embedding x and the gap g: ``h = W x + c``, ``z = max(σ(W_z x + W_g g + b), 1/(n+1))``.
    The second reads ``y = P x + MLP(LayerNorm(a1))`` with the first one's state after the click. The third is the
    closed form's ``c ← r c + U[item]``.

    Args:
        weights: By name, such as ``first.value.weight``; without ``first.…`` the rates are fixed.
    """

    def __init__(self, weights: dict[str, Array], config: DATConfig):
        memory = config.memory
        self.dim, self.closed_rank, self.decay = memory.dim, config.closed_rank, config.closed_form.decay
        self.width, self.second = len(memory.rates) * memory.dim, memory.second
        self.rates = np.repeat(np.asarray(memory.rates, np.float32), memory.dim)
        self.weights, self.learned = weights, memory.learned

    def fold(self, groups: Groups, a: Array, update_count: Array, readings: Array, gap: Array | None) -> Scan:
        assert gap is not None
        x = readings[:, : self.dim]
        parts = [self._first(groups, a[:, : self.width], update_count, x, gap)]
        if self.second:
            start = a[:, self.width : self.width + self.second]
            parts.append(self._second(groups, start, x, gap, parts[0]))
        if self.closed_rank:
            add = readings[:, self.dim :]
            parts.append(scan(groups, a[:, self.width + self.second :], np.full_like(add, self.decay), add))
        return Scan(groups, a, np.concatenate([part.inclusive for part in parts], axis=1))

    def _first(self, groups: Groups, a: Array, update_count: Array, x: Array, gap: Array) -> Scan:
        least = 1 / (update_count[groups.key] + groups.rank + 1.0)[:, None].astype(np.float32)
        if self.learned:
            value, z = self._linear("first.value", x), sigmoid(self._gate("first", x, gap))
            z[:, self.rates == 1] = 1
        else:
            value, z = np.tile(x, (1, len(self.rates) // self.dim)), self.rates[None, :]
        z = np.maximum(z, least)
        return scan(groups, a, 1 - z, z * value)

    def _second(self, groups: Groups, a: Array, x: Array, gap: Array, first: Scan) -> Scan:
        state = first.inclusive[groups.place]
        centred = state - state.mean(1, keepdims=True)
        normal = centred / np.sqrt(np.square(centred).mean(1, keepdims=True) + 1e-5)
        normal = normal * self.weights["second.norm.weight"] + self.weights["second.norm.bias"]
        mixed = self._linear("second.mix.2", silu(self._linear("second.mix.0", normal)))
        y = x @ self.weights["second.item.weight"].T + mixed
        value, z = self._linear("second.value", y), sigmoid(self._gate("second", y, gap))
        return scan(groups, a, 1 - z, z * value)

    def _gate(self, layer: str, read: Array, gap: Array) -> Array:
        return self._linear(f"{layer}.gate", read) + gap @ self.weights[f"{layer}.gap.weight"].T

    def _linear(self, name: str, values: Array) -> Array:
        return values @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]


def gap_inputs(last_click: Array, times: Array) -> Array:
    """What is read of the time since the click before: [N, 5] float32.

    Log seconds, more than ten minutes, more than a day, no click before, none at all. A late click has no gap.

    Args:
        last_click: [N] ms, 0: never. times: [N] ms.
    """
    known = last_click > 0
    seconds = np.where(known, np.maximum(times - last_click, 0) / 1000, 0)
    columns = np.log1p(seconds) / 10, seconds > 600, seconds > 86_400, ~known, known & (seconds == 0)
    return np.stack(columns, axis=1).astype(np.float32)


def sigmoid(values: Array) -> Array:
    return 1 / (1 + np.exp(-np.clip(values, -60, 60)))


def silu(values: Array) -> Array:
    return values * sigmoid(values)
