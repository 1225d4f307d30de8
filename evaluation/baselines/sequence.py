"""GRU4Rec, SASRec and HSTU: what a query clicked as a sequence, under the loss, the batches and the features of DAT.

All read everything up to just before a click, the user's features and the time since the click before, and answer by a
cosine over trained item embeddings. They differ from DAT in what becomes of the clicks: a recurrent network's state
(Hidasi et al., 2016), or causal attention over the last fifty, by softmax (SASRec: Kang and McAuley, 2018) or by
pointwise gates (HSTU: Zhai et al., 2024). ``gru4rec-fresh`` also has DAT's activity of items, as of now. Losses are
DAT's: softmax over all items or sampled (Klenitskiy and Vasilev, 2023).
"""

from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence

from evaluation.dat_scorer import LiveDAT, StaticDAT
from evaluation.test_clicks import TestClicks
from model.features import Inputs
from model.memory import GAP_WIDTH
from model.memory_towers import MemoryQueryTower
from model.scan import Groups, Scan
from model.settings.model import NO_CLOSED_FORM, DATConfig, MemoryConfig
from model.state import EntityState
from model.towers import Towers
from training.memory import Dropout, MemoryDAT, Steps
from training.memory_trainer import MemoryTrainer
from training.trained_model import TrainedModel
from training.trainer import Trainer
from training.training_set import TrainingSet

Array = np.ndarray
HEADS, BLOCKS = 2, 2
MASKED = -1e9


class GRU(nn.Module):
    """One recurrent layer over item embeddings and gaps; its state is all that is kept of a query."""

    def __init__(self, dim: int, width: int):
        super().__init__()
        self.gru = nn.GRU(dim + GAP_WIDTH, width)

    def forward(self, x: Tensor, gap: Tensor, number: Tensor, start: Tensor, steps: Steps, dropout: Dropout) -> Tensor:
        """As :class:`training.memory.LearnedMemory`: states [T, width] after each click."""
        read = PackedSequence(torch.cat([dropout(x), gap], dim=1), torch.tensor(steps.counts))
        return self.gru(read, start[None])[0].data

    @torch.no_grad()
    def fold(self, groups: Groups, a: Array, update_count: Array, readings: Array, gap: Array | None) -> Scan:
        """As :class:`model.memory.Memory`."""
        assert gap is not None
        read = torch.from_numpy(np.concatenate([readings, gap], axis=1).astype(np.float32))
        inclusive = torch.zeros(len(readings), a.shape[1])
        rank, state = groups.rank, torch.from_numpy(np.array(a))
        for step in range(int(rank.max(initial=-1)) + 1):
            now = torch.from_numpy(np.flatnonzero(rank == step))
            of = torch.from_numpy(groups.key)[now]
            state[of] = torch.gru_cell(read[now], state[of], *self.gru.all_weights[0])
            inclusive[torch.from_numpy(groups.place)[now]] = state[of]
        return Scan(groups, a, inclusive.numpy())


class AttentionBlock(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.norm, self.qkv, self.out = nn.LayerNorm(width), nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mix_norm, self.up = nn.LayerNorm(width), nn.Linear(width, 2 * width)
        self.down = nn.Linear(2 * width, width)

    def forward(self, z: Tensor, bias: Tensor, dropout: Dropout) -> Tensor:
        size, length, _ = z.shape
        q, k, v = self.qkv(self.norm(z)).view(size, length, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=bias).transpose(1, 2).flatten(2)
        z = z + dropout(self.out(mixed))
        return z + dropout(self.down(F.gelu(self.up(self.mix_norm(z)))))


class HSTUBlock(nn.Module):
    """Φ(Q Kᵀ + bias) V / n, gated by U, in place of a softmax and a feed-forward layer (equations 1 to 3 of HSTU)."""

    def __init__(self, width: int):
        super().__init__()
        self.norm, self.uvqk, self.out = nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.Linear(width, width)
        self.gate_norm = nn.LayerNorm(width)

    def forward(self, z: Tensor, bias: Tensor, dropout: Dropout) -> Tensor:
        size, length, width = z.shape
        u, v, q, k = F.silu(self.uvqk(self.norm(z))).view(size, length, 4, HEADS, -1).permute(2, 0, 3, 1, 4)
        read = (bias > MASKED / 2).sum(-1, keepdim=True).clamp(min=1)
        mixed = F.silu(q @ k.transpose(2, 3) + bias) @ v / read  # what is masked is silu(−10⁹) = 0
        mixed, u = (part.transpose(1, 2).reshape(size, length, width) for part in (mixed, u))
        return z + dropout(self.out(self.gate_norm(mixed) * u))


class Attention(nn.Module):
    """Causal self-attention over a query's last ``window`` clicks, by their distance. Its state is those clicks."""

    def __init__(self, block: type[nn.Module], dim: int, window: int, width: int):
        super().__init__()
        self.window, self.read = window, nn.Linear(dim + GAP_WIDTH, width)
        self.distance = nn.Parameter(torch.zeros(window, HEADS))
        self.blocks = [block(width) for _ in range(BLOCKS)]
        self.held = nn.ModuleList(self.blocks)
        self.norm = nn.LayerNorm(width)

    def encode(self, tokens: Tensor, filled: Tensor, dropout: Dropout) -> Tensor:
        """tokens [G, L, d + 5], filled [G, L] → [G, L, width]."""
        size, length, _ = tokens.shape
        z = dropout(self.read(tokens))
        apart = torch.arange(length)[:, None] - torch.arange(length)[None, :]
        near = (apart >= 0) & (apart < self.window)
        bias = self.distance[apart.clamp(0, self.window - 1)].permute(2, 0, 1)[None]
        mask = (near & (filled[:, None, :] | (apart == 0)))[:, None]
        bias = bias.masked_fill(~mask, MASKED)
        for block in self.blocks:
            z = block(z, bias, dropout)
        return self.norm(z)

    def forward(self, x: Tensor, gap: Tensor, number: Tensor, start: Tensor, steps: Steps, dropout: Dropout) -> Tensor:
        """As :class:`training.memory.LearnedMemory`, over the clicks since a query's base."""
        tokens, filled = steps.padded(torch.cat([x, gap], dim=1)), steps.padded(torch.ones(len(x), dtype=torch.bool))
        encoded = tokens.new_zeros(*tokens.shape[:2], self.norm.normalized_shape[0])
        for like in steps.of_like_length():
            length = int(steps.lengths[like.start])
            part = self.encode(tokens[:length, like].transpose(0, 1), filled[:length, like].T, dropout)
            encoded[:length, like] = part.transpose(0, 1)
        return steps.packed(encoded)

    def fold(self, groups: Groups, a: Array, update_count: Array, readings: Array, gap: Array | None) -> Scan:
        """As :class:`model.memory.Memory`: the state is the last clicks as they are read, oldest first."""
        assert gap is not None
        read = np.concatenate([readings, gap, np.ones((len(gap), 1))], axis=1).astype(np.float32)[groups.order]
        width = read.shape[1]
        before = np.asarray(a, np.float32).reshape(len(a), self.window, width)
        rank, key = groups.rank[groups.order], groups.key[groups.order]
        inclusive = np.empty((len(read), self.window, width), np.float32)
        for k in range(self.window):  # k clicks ago
            here = np.where(rank >= k, np.arange(len(read)) - k, 0)
            old = before[key, np.clip(self.window - 1 - (k - rank - 1), 0, self.window - 1)]
            inclusive[:, self.window - 1 - k] = np.where((rank >= k)[:, None], read[here], old)
        return Scan(groups, a, inclusive.reshape(len(read), -1))

    @torch.no_grad()
    def last(self, a: Array) -> Array:
        """[N, width] of states [N, window · (d + 6)]."""
        if not len(a):
            return np.zeros((0, self.read.out_features), np.float32)
        tokens = torch.from_numpy(np.ascontiguousarray(a)).view(len(a), self.window, a.shape[1] // self.window)
        filled = tokens[:, :, -1] > 0
        encoded = self.encode(tokens[:, :, :-1], filled, Dropout(0, None))[:, -1]
        return torch.where(filled[:, -1:], encoded, 0.0).numpy()


BLOCK_OF: dict[str, type[AttentionBlock | HSTUBlock] | None] = {
    "gru": None,
    "sasrec": AttentionBlock,
    "hstu": HSTUBlock,
}


class SequenceTrainer(MemoryTrainer):
    """DAT's trainer with another network in the place of the memory."""

    def __init__(self, data: TrainingSet, config: DATConfig, network: str, fresh: bool):
        self.block, self.fresh = BLOCK_OF[network], fresh
        super().__init__(data, config)

    def _make_model(self) -> MemoryDAT:
        model, memory = super()._make_model(), self.config.memory
        self.network: GRU | Attention = (
            Attention(self.block, memory.dim, memory.span, memory.second)
            if self.block
            else GRU(memory.dim, memory.second)
        )
        model.query_tower.memory = self.network  # type: ignore[assignment]
        model.query_tower.scale.fill_(1)
        if not self.fresh:
            for layer in (model.query_tower.activity, cast(nn.Linear, model.item_tower.activity[2])):
                nn.init.zeros_(layer.weight).requires_grad_(False)
                nn.init.zeros_(layer.bias).requires_grad_(False)
        return model

    def numpy_towers(self) -> Towers:
        towers, network = super().numpy_towers(), self.network
        assert isinstance(towers.query, MemoryQueryTower)
        query = _Attending(towers.query, network) if isinstance(network, Attention) else towers.query
        return replace(towers, query=query, memory=network)  # type: ignore[arg-type]

    def settle(self) -> tuple[EntityState, EntityState]:
        replay, towers, memory = Trainer.restart(self), self.numpy_towers(), self.config.memory
        width = memory.span * (memory.dim + GAP_WIDTH + 1) if self.block else memory.second
        replay.queries.columns["a"] = np.zeros((len(self.data.queries), width), np.float32)
        self.replay_with(replay, towers)
        return replay.queries, replay.items


class _Attending:
    """The query tower over the last clicks."""

    ids = None

    def __init__(self, tower: MemoryQueryTower, network: Attention):
        self.tower, self.network = tower, network

    def __call__(self, inputs: Inputs, augmented: Array) -> Array:
        parts = np.array_split(np.arange(len(inputs)), max(1, len(inputs) // 512))
        return np.concatenate([self.tower(inputs.take(p), self.network.last(augmented[p])) for p in parts])


class SequenceModel:
    """A rival of a comparison.

    Args:
        network: One of :data:`BLOCK_OF`. fresh: with the items' activity as of now. hidden: the network's width.
        settings: Of training, as DAT's.
    """

    def __init__(self, network: str, fresh: bool, hidden: int = 128, seed: int = 0, **settings: Any):
        memory = settings.pop("memory", {}) | {"rates": (), "item_rates": (), "learned": False, "second": hidden}
        self.config = DATConfig(seed=seed, memory=MemoryConfig(**memory), closed_form=NO_CLOSED_FORM, **settings)
        self.network, self.fresh = network, fresh

    def fit(self, data: TrainingSet, cut_ms: int) -> None:
        trainer = SequenceTrainer(data, self.config, self.network, self.fresh)
        epochs = trainer.run()
        queries, items = trainer.settle()
        model = TrainedModel(
            trainer.numpy_towers(), queries, items, data.query_spec, data.item_spec, self.config, cut_ms,
            data.excludes_seen, epochs,
        )  # fmt: skip
        self.trained = model.with_vectors(queries, items, cut_ms)

    def scorer(self, test: TestClicks, live: bool) -> StaticDAT | LiveDAT:
        return (LiveDAT if live else StaticDAT)(self.trained, test)
