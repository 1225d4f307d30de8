"""Learned memories and their towers in torch: ``model/memory.py`` and ``model/memory_towers.py`` with gradients."""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.features import InputSpec
from model.memory import GAP_WIDTH
from model.settings.model import DATConfig
from training.towers import Scale

Array = np.ndarray
ACTIVITY = 16  # dimensions of the inner product that an item's activity has
SLOWEST, FASTEST = 0.02, 0.6  # the second layer's rates at first, log-spaced
SECOND_SCALE = 0.1  # of the second layer's state, as the query tower reads it


class Steps(NamedTuple):
    """T clicks of G sequences, by their places in the sequences: all first ones, all second ones, and so on.

    The longest sequence comes first, so that those which go on are the first ones of a step.

    lengths: [G] clicks of each, descending · counts: clicks of each step.
    """

    lengths: Array
    counts: list[int]

    @classmethod
    def of(cls, lengths: Array) -> "Steps":
        ends = np.bincount(lengths, minlength=1)
        return cls(lengths, (len(lengths) - np.cumsum(ends)[:-1]).tolist())

    def place(self, sequence: Array, number: Array) -> Array:
        """Where the clicks with these numbers, from 0, of their sequences stand."""
        starts = np.cumsum(self.counts) - self.counts
        return starts[number] + sequence

    @property
    def order(self) -> tuple[Array, Array]:
        """[T] the sequence and the number in it of each click."""
        counts = np.asarray(self.counts, np.int64)
        number = np.repeat(np.arange(len(counts)), counts)
        return np.arange(len(number)) - np.repeat(np.cumsum(counts) - counts, counts), number

    def of_like_length(self) -> Iterator[slice]:
        """Slices of the sequences of which none is more than twice as long as another."""
        start = 0
        while start < len(self.lengths):
            stop = int(np.searchsorted(-self.lengths, -self.lengths[start] / 2, side="right"))
            yield slice(start, stop)
            start = stop

    def padded(self, values: Tensor) -> Tensor:
        """[T, W] as [L, G, W], with zeros after a sequence's end."""
        place = torch.from_numpy(np.flatnonzero((np.arange(len(self.counts))[:, None] < self.lengths).ravel()))
        wide = values.new_zeros(len(self.counts) * len(self.lengths), *values.shape[1:]).index_copy(0, place, values)
        return wide.view(len(self.counts), len(self.lengths), *values.shape[1:])

    def packed(self, values: Tensor) -> Tensor:
        """[L, G, W] as [T, W]."""
        return values[torch.from_numpy(np.arange(len(self.counts))[:, None] < self.lengths)]


class AffineScan(torch.autograd.Function):
    """``x_t = keep_t ⊙ x_{t−1} + add_t`` over clicks [T, W] by :class:`Steps`, from start [G, W]."""

    @staticmethod
    def forward(ctx: Any, keep: Tensor, add: Tensor, start: Tensor, counts: list[int]) -> Tensor:
        states = torch.empty_like(add)
        for into, k, more, before in zip(
            states.split(counts), keep.split(counts), add.split(counts), _before(states, start, counts), strict=True
        ):
            torch.addcmul(more, k, before, out=into)
        ctx.save_for_backward(keep, states, start)
        ctx.counts = counts
        return states

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        keep, states, start = ctx.saved_tensors
        counts = ctx.counts
        to_add, to_start = grad.clone(), torch.zeros_like(start)
        parts = zip(keep.split(counts), to_add.split(counts), _before(to_add, to_start, counts), strict=True)
        for k, later, earlier in reversed(list(parts)):
            earlier.addcmul_(k, later)
        to_keep = to_add * torch.cat(_before(states, start, counts))
        return to_keep, to_add, to_start, None


def _before(states: Tensor, start: Tensor, counts: list[int]) -> list[Tensor]:
    """Of each step, the rows of the step before it."""
    earlier = [start, *states.split(counts)[:-1]]
    return [rows[:count] for rows, count in zip(earlier, counts, strict=True)]


class Dropout:
    """Dropout from a generator of its own, so that a run which is stopped and goes on ends in the same weights."""

    def __init__(self, rate: float, random: torch.Generator | None):
        self.rate, self.random = rate, random

    def __call__(self, values: Tensor, share: float = 1.0) -> Tensor:
        rate = self.rate * share
        if not rate or self.random is None:
            return values
        return values * torch.empty_like(values).bernoulli_(1 - rate, generator=self.random) / (1 - rate)


class GatedLayer(nn.Module):
    """h = W y + c and the logit of z = σ(W_z y + W_g g + b), for one affine layer.

    Args:
        rates: [W] where the gates start.
    """

    def __init__(self, reads: int, rates: Tensor):
        super().__init__()
        self.value, self.gate = nn.Linear(reads, len(rates)), nn.Linear(reads, len(rates))
        self.gap = nn.Linear(GAP_WIDTH, len(rates), bias=False)
        nn.init.zeros_(self.value.bias)
        nn.init.zeros_(self.gap.weight)
        with torch.no_grad():
            self.gate.bias.copy_(torch.logit(rates, eps=1e-6))

    def forward(self, y: Tensor, gap: Tensor) -> tuple[Tensor, Tensor]:
        return self.value(y), torch.sigmoid(self.gate(y) + self.gap(gap))


class SecondLayer(GatedLayer):
    """Reads the first layer's state: ``y = P x + MLP(LayerNorm(a1))``."""

    def __init__(self, dim: int, first: int, width: int):
        rates = torch.logspace(math.log10(SLOWEST), math.log10(FASTEST), width)
        super().__init__(width, rates)
        self.norm, self.item = nn.LayerNorm(first), nn.Linear(dim, width, bias=False)
        self.mix = nn.Sequential(nn.Linear(first, 2 * width), nn.SiLU(), nn.Linear(2 * width, width))
        nn.init.normal_(self.gate.weight, std=1 / math.sqrt(width))

    def read(self, x: Tensor, first: Tensor, dropout: Dropout) -> Tensor:
        return self.item(x) + self.mix[2](dropout(self.mix[1](self.mix[0](self.norm(first))), share=0.5))


class LearnedMemory(nn.Module):
    """Both layers over the clicks of some queries."""

    def __init__(self, config: DATConfig):
        super().__init__()
        memory = config.memory
        self.width, blocks = len(memory.rates) * memory.dim, len(memory.rates)
        self.rates: Tensor
        self.register_buffer("rates", torch.tensor(memory.rates).repeat_interleave(memory.dim), persistent=False)
        self.blocks, self.first, self.second = blocks, None, None
        if memory.learned:
            self.first = GatedLayer(memory.dim, self.rates)
            with torch.no_grad():
                self.first.value.weight.copy_(torch.eye(memory.dim).repeat(blocks, 1))
            nn.init.normal_(self.first.gate.weight, std=0.3 / math.sqrt(memory.dim))
        if memory.second and memory.rates:
            self.second = SecondLayer(memory.dim, self.width, memory.second)

    def forward(self, x: Tensor, gap: Tensor, number: Tensor, start: Tensor, steps: Steps, dropout: Dropout) -> Tensor:
        """States [T, A] after each click.

        Args:
            x: [T, d] embeddings of the clicked items. gap: [T, 5]. number: [T] clicks folded before.
            start: [G, A] the states before. steps: Whose clicks these are.
        """
        least = (1 / (number + 1))[:, None]
        if self.first is None:
            value, z = x.repeat(1, self.blocks), torch.maximum(self.rates.expand(len(x), -1), least)
        else:
            value, z = self.first(x, gap)
            z = torch.maximum(torch.where(self.rates == 1, 1.0, z), least)
        states: Tensor = AffineScan.apply(1 - z, z * value, start[:, : self.width], steps.counts)
        if self.second is None:
            return states
        value, z = self.second(self.second.read(x, states, dropout), gap)
        return torch.cat([states, AffineScan.apply(1 - z, z * value, start[:, self.width :], steps.counts)], dim=1)


class MemoryQueryTower(nn.Module):
    def __init__(self, spec: InputSpec, config: DATConfig):
        super().__init__()
        memory, known = config.memory, config.query_state_dim - config.closed_rank
        self.memory = LearnedMemory(config)
        self.features = nn.Embedding(spec.codes, 16, padding_idx=0, sparse=True)
        nn.init.normal_(self.features.weight, std=1 / 16)
        nn.init.zeros_(self.features.weight[0].detach())
        reads = known + 16 + spec.dense_width + GAP_WIDTH
        scale = torch.ones(known)
        scale[self.memory.width :] = SECOND_SCALE
        self.scale: Tensor
        self.register_buffer("scale", scale)
        self.register_buffer("dense_mean", torch.zeros(spec.dense_width))
        self.register_buffer("dense_std", torch.ones(spec.dense_width))
        self.hidden, self.head = nn.Linear(reads, memory.hidden), nn.Linear(memory.hidden, memory.dim)
        self.skip = nn.Linear(reads, memory.dim, bias=False)
        self.activity = nn.Linear(memory.hidden, ACTIVITY)
        self.second_item = self.second_hidden = None
        if config.item_state_dim:
            self.second_item = nn.Linear(memory.dim, config.item_state_dim, bias=False)
            self.second_hidden = nn.Linear(memory.hidden, config.item_state_dim, bias=False)

    def standardise(self, scale: Scale) -> None:
        self.dense_mean, self.dense_std = map(torch.from_numpy, scale.mean_and_std())

    def forward(self, state: Tensor, codes: Tensor, dense: Tensor, gap: Tensor, dropout: Dropout) -> Tensor:
        """state [N, A], codes [N, C], dense [N, K], gap [N, 5] → [N, D], without the closed form."""
        state = dropout(state * self.scale)
        parts = state, mean_of_codes(self.features, codes), (dense - self.dense_mean) / self.dense_std, gap
        read = torch.cat(parts, dim=1)
        hidden = F.silu(self.hidden(read))
        q = F.normalize(self.head(dropout(hidden)) + self.skip(read), dim=1)
        vectors = [q]
        if self.second_item is not None and self.second_hidden is not None:
            vectors.append(self.second_item(q) + self.second_hidden(hidden))
        return torch.cat([*vectors, self.activity(hidden)], dim=1)


class MemoryItemTower(nn.Module):
    def __init__(self, items: int, spec: InputSpec, config: DATConfig):
        super().__init__()
        dim = config.memory.dim
        self.ids = nn.Embedding(items + 1, dim, sparse=True)
        nn.init.normal_(self.ids.weight, std=1 / math.sqrt(dim))
        self.features = nn.Embedding(spec.codes, dim, padding_idx=0, sparse=True)
        nn.init.normal_(self.features.weight, std=0.5 / math.sqrt(dim))
        with torch.no_grad():
            self.ids.weight[0] *= 0.1
            self.features.weight[0] = 0
        self.temperature = config.temperature
        self.register_buffer("dense_mean", torch.zeros(spec.dense_width))
        self.register_buffer("dense_std", torch.ones(spec.dense_width))
        self.activity = nn.Sequential(nn.Linear(spec.dense_width, 32), nn.SiLU(), nn.Linear(32, ACTIVITY))
        self.gate = nn.Linear(32, config.item_state_dim) if config.item_state_dim else None

    def standardise(self, scale: Scale) -> None:
        self.dense_mean, self.dense_std = map(torch.from_numpy, scale.mean_and_std())

    def embed(self, rows: Tensor, codes: Tensor) -> Tensor:
        """e(v) [N, d]."""
        return self.ids(rows) + mean_of_codes(self.features, codes)

    def forward(self, rows: Tensor, codes: Tensor, dense: Tensor, augmented: Tensor) -> Tensor:
        """rows [N], codes [N, C], dense [N, K], augmented [N, A_v] → [N, D] times T, without the closed form."""
        parts = [self.temperature * F.normalize(self.embed(rows, codes), dim=1)]
        activity = self.activity[1](self.activity[0]((dense - self.dense_mean) / self.dense_std))
        if self.gate is not None:
            parts.append(torch.sigmoid(self.gate(activity)) * augmented)
        return torch.cat([*parts, self.activity[2](activity)], dim=1)


class MemoryDAT(nn.Module):
    """Both towers; the weights' names are those of the NumPy towers."""

    def __init__(self, items: int, query: InputSpec, item: InputSpec, config: DATConfig):
        super().__init__()
        self.query_tower, self.item_tower = MemoryQueryTower(query, config), MemoryItemTower(items, item, config)

    def weights(self) -> dict[str, np.ndarray]:
        """Copies of all weights by name."""
        return {name: tensor.detach().cpu().numpy().copy() for name, tensor in self.state_dict().items()}


def mean_of_codes(table: nn.Embedding, codes: Tensor) -> Tensor:
    """[N, E]: the mean of the embeddings of the codes [N, C] that are filled."""
    if not codes.shape[1]:
        return torch.zeros(len(codes), table.embedding_dim)
    return table(codes).sum(1) / (codes > 0).sum(1, keepdim=True).clamp(min=1)
