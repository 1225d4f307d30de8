"""DAT as published: eq. 2 by gradient, eq. 3, and eq. 4 over each click's own negatives (preset ``paper``)."""

import numpy as np
import torch
from torch import nn

from model.features import Inputs
from model.replay import Replay
from model.state import EntityState
from training import losses
from training.block import Block
from training.seen_mask import SeenMask
from training.trainer import Trainer

Array = np.ndarray


class PaperTrainer(Trainer):
    """a_u and a_v are parameters, which the mimic loss pulls towards the other tower's output (eq. 2)."""

    def _parameters(self) -> nn.Module:
        data, width = self.data, self.config.query_state_dim
        self.a_u = nn.Embedding(len(data.queries), width, sparse=True)
        self.a_v = nn.Embedding(len(data.items), width, sparse=True)
        for table in (self.a_u, self.a_v):
            nn.init.zeros_(table.weight)
        return nn.ModuleDict({"model": self.model, "a_u": self.a_u, "a_v": self.a_v})

    def restart(self) -> Replay:
        """Activity as before the window's first click; the augmented vectors are what has been learnt so far."""
        replay = super().restart()
        # Copies: the replay folds into them, and only the gradient may move the parameters.
        replay.queries.columns["a"], replay.items.columns["a"] = _copy(self.a_u), _copy(self.a_v)
        return replay

    def item_health(self) -> tuple[float, float]:
        self.replay.items.columns["a"] = _copy(self.a_v)
        return super().item_health()

    def step(self, block: Block, rows: slice, query: Inputs, a_u: Array, seen: SeenMask) -> list[float]:
        config, paper, batch, dim = self.config, self.config.paper, block.part(rows), self.config.tower.output_dim
        candidates = np.concatenate([batch.clicks.items[:, None], batch.negatives], axis=1)
        size, width = candidates.shape
        # What is no item yet, or is the clicked one again, is no negative.
        real = (candidates >= 0) & (candidates != candidates[:, :1])
        real[:, 0] = True
        exists = torch.from_numpy(real)
        flat = np.maximum(candidates, 0).ravel()
        # From the parameters, not from the replay's copy: the gradient must reach them.
        rows_u, rows_v = (torch.from_numpy(ids.astype(np.int64)) for ids in (batch.clicks.queries, flat))
        learnt_u, learnt_v = self.a_u(rows_u), self.a_v(rows_v)
        p_u = self._forward(self.model.query_tower, query, learnt_u, config.query_id_dropout)
        p_v = self._forward(
            self.model.item_tower, self.replay.item_inputs(flat, block.time)[0], learnt_v, config.item_id_dropout
        )
        by_click = p_v.view(size, width, -1)
        loss_p = losses.binary_cross_entropy(p_u, by_click, exists, config.temperature, self.weights_of(batch))
        pairs = int(real.sum())
        loss_u = losses.mimic(learnt_u.view(size, -1, dim), by_click[:, 0], pairs)
        loss_v = losses.mimic(learnt_v.view(size, width, -1, dim)[:, 0], p_u, pairs)
        loss_ca = torch.zeros(())
        if paper.lambda_ca:
            loss_ca = losses.category_alignment(p_v, torch.from_numpy(self.data.item_category[flat]) * exists.ravel())
        loss = loss_p + paper.lambda_u * loss_u + paper.lambda_v * loss_v + paper.lambda_ca * loss_ca
        self.optimiser.step(loss)
        return [float(part.detach()) for part in (loss, loss_p, loss_u, loss_v, loss_ca)]

    def settle(self) -> tuple[EntityState, EntityState]:
        """Both sides at the cut, with the augmented vectors that were learnt."""
        queries, items = super().settle()
        queries.columns["a"], items.columns["a"] = _copy(self.a_u), _copy(self.a_v)
        return queries, items


def _copy(table: nn.Embedding) -> Array:
    return table.weight.detach().numpy().copy()
