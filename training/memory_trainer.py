"""Training of learned memories: a replay in time order, whose gradient flows through a query's last clicks.

A batch is a block of consecutive clicks. Each of its queries is run again from a state that is carried as it is, over
at most ``span`` clicks; the block's clicks are predicted, all items being as of the block's start.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from model.features import Inputs
from model.replay import NO_TOWERS, Replay
from training import losses
from training.block import Block
from training.chosen import is_full
from training.closed_form import closed_form
from training.diagnostics import health
from training.memory import Dropout, MemoryDAT, Steps
from training.optimiser import Optimiser
from training.seen_mask import Cells, SeenMask
from training.stretch import Stretch, Tails
from training.trainer import HEALTH_SAMPLE, Trainer

Array = np.ndarray
CLIP = 5.0  # the gradient's largest norm
QUIET = Dropout(0.0, None)


class _Run(NamedTuple):
    """T clicks of G queries, each query's from its base on, the query with most of them first.

    at: [T] in the block's stretch · folded: [T] clicks before each · begin: [G] clicks that the base has folded ·
    base: [G, A] · slot: [G] where each of the asked keys stands.
    """

    at: Array
    folded: Tensor
    begin: Array
    base: Tensor
    steps: Steps
    slot: Array

    @classmethod
    def of(cls, trainer: "MemoryTrainer", keys: Array, end: Array) -> "_Run":
        """The clicks of some queries up to their ``end``-th [G]."""
        lengths = end - trainer.base_at[keys]
        order = np.argsort(-lengths, kind="stable")
        slot = np.empty(len(keys), np.int64)
        slot[order] = np.arange(len(keys))
        steps, begin = Steps.of(lengths[order]), trainer.base_at[keys[order]]
        sequence, number = steps.order
        rank = begin[sequence] + number
        return cls(
            trainer.stretch.places(keys[order][sequence], rank),
            torch.from_numpy(rank.astype(np.float32)), begin, torch.from_numpy(trainer.base[keys[order]]), steps, slot,
        )  # fmt: skip

    def after(self, states: Tensor, key: Array, clicks: Array) -> Tensor:
        """[B, A] of the states [T, A] those of some keys (their places among the asked) after so many clicks."""
        slot = self.slot[key]
        number = clicks - self.begin[slot] - 1
        place = torch.from_numpy(self.steps.place(slot, np.maximum(number, 0)))
        return torch.where(torch.from_numpy(number >= 0)[:, None], states[place], self.base[torch.from_numpy(slot)])


class MemoryTrainer(Trainer):
    model: MemoryDAT

    def _make_model(self) -> MemoryDAT:
        return MemoryDAT(len(self.data.items), self.data.query_spec, self.data.item_spec, self.config)

    def _prepare(self) -> None:
        data, config = self.data, self.config
        self.dropout = Dropout(config.memory.dropout, self.random)
        rare = config.memory.rare_clicks
        self.hidden = np.maximum(config.item_id_dropout, rare / np.maximum(rare + self.clicks_of, 1)).astype(np.float32)
        self.full = is_full(config.memory.softmax, len(data.items))

    def _make_optimiser(self) -> Optimiser:
        config = self.config
        return Optimiser(
            self.parameters, config.learning_rate, embedding_scale=config.embedding_lr_scale,
            weight_decay=config.memory.weight_decay, clip=CLIP,
        )  # fmt: skip

    def restart(self) -> Replay:
        """Both sides as before the window's first click; the queries' memories are carried by the trainer."""
        replay = super().restart()
        replay.queries.columns["a"] = np.zeros((len(self.data.queries), 0), np.float32)
        width = self.config.query_state_dim - self.config.closed_rank
        self.base = np.zeros((len(self.data.queries), width), np.float32)
        self.base_at = np.zeros(len(self.data.queries), np.int64)  # clicks of the window that the base has folded
        self.tails = Tails(len(self.data.queries), self.config.memory.span)
        return replay

    def within_epoch(self) -> dict[str, Any]:
        held = {"base": self.base, "base_at": self.base_at, "items": self.tails.items, "since": self.tails.since}
        return super().within_epoch() | {"memory": {name: torch.from_numpy(values) for name, values in held.items()}}

    def load_within_epoch(self, state: dict[str, Any]) -> None:
        super().load_within_epoch(state)
        self.base, self.base_at, self.tails.items, self.tails.since = (
            state["memory"][name].numpy() for name in ("base", "base_at", "items", "since")
        )

    def train(self, block: Block) -> None:
        clicks, span = block.clicks, self.config.memory.span
        observed = self.replay.observe(clicks, NO_TOWERS)
        fold, groups = observed.fold, observed.fold.groups
        folded, _ = fold.before()
        before = fold.clicks - self.data.queries.clicks[fold.rows]
        self.stretch = Stretch.of(self.tails, self.base_at, fold, before, self.config)
        rank, moment = before[groups.key] + groups.rank, before[groups.key] + observed.visible
        known, visible = (folded, rank) if self.config.memory.same_moment else (observed.before()[0], moment)
        seen = SeenMask(fold, self.data.excludes_seen)
        signals = np.zeros((len(clicks), self.config.signal_dim), np.float32)
        for rows in self._parts(block):
            signals[rows] = self.step_memory(
                block, rows, rank[rows], known.take(rows), visible[rows], folded.take(rows), moment[rows], seen
            )
        # A moment in which one query clicked more often than a tail is long.
        over = self.stretch.until - self.base_at[fold.rows] > span
        self._carry(fold.rows[over], (self.stretch.until - span // 2)[over], self.stretch.until[over])
        self.stretch.keep(self.tails)
        self.replay.apply(clicks, observed, signals)

    def step_memory(
        self, block: Block, rows: slice, rank: Array, known: Inputs, visible: Array, folded: Inputs, moment: Array,
        seen: SeenMask,
    ) -> Array:  # fmt: skip
        """Train on some clicks of one block; returns the signals [B, d] for the items.

        Args:
            rows: Their places in the block. rank: [B] clicks of its query before each. known: what predicts them,
                visible: [B] clicks of its query that each knows. folded: the same in the order of the fold, whose
                vectors the items take in. moment: [B] clicks of its query before each one's moment.
        """
        batch, tower = block.part(rows), self.model.item_tower
        keys, group = np.unique(batch.clicks.queries, return_inverse=True)
        end = np.zeros(len(keys), np.int64)
        np.maximum.at(end, group, rank + 1)
        run = _Run.of(self, keys, end)
        candidates = self._candidates(batch)
        hidden = self._hide(np.concatenate([self.stretch.items[run.at], candidates]))
        states = self._memory(run, hidden[: len(run.at)], self.dropout)
        inputs, a_v = self.replay.item_inputs(candidates, block.time)
        p_v = tower(hidden[len(run.at) :], *map(torch.from_numpy, (inputs.codes, inputs.dense, a_v)))
        p_u = self._query(run.after(states, group, visible), known, self.dropout)
        loss = self._loss(p_u, p_v, batch, candidates, seen.of(rows, candidates), block.time)
        if loss is not None:
            self.optimiser.step(loss)
        self._add([0.0 if loss is None else float(loss.detach())] * 2 + [0.0] * 3)
        with torch.no_grad():
            signals = self._query(run.after(states.detach(), group, rank), folded, QUIET)
        newest = np.zeros(len(keys), np.int64)
        newest[group] = moment
        self._carry(keys, np.minimum(end - self.config.memory.span // 2, newest), end)
        return signals[:, : self.config.signal_dim].numpy()

    @torch.no_grad()
    def _carry(self, keys: Array, to: Array, end: Array) -> None:
        """Fold the oldest clicks of queries that have more than ``span`` since their base: the next steps' start."""
        moved = (end - self.base_at[keys] > self.config.memory.span) & (to > self.base_at[keys])
        keys, to = keys[moved], to[moved]
        if len(keys):
            run = _Run.of(self, keys, to)
            states = self._memory(run, torch.from_numpy(self.stretch.items[run.at] + 1), QUIET)
            self.base[keys], self.base_at[keys] = run.after(states, np.arange(len(keys)), to).numpy(), to

    def _memory(self, run: "_Run", rows: Tensor, dropout: Dropout) -> Tensor:
        """States [T, A] after each click of a run, whose items have these ``rows`` [T] of the id embedding."""
        codes = self.data.items.codes[self.stretch.items[run.at]]
        x = self.model.item_tower.embed(rows, torch.from_numpy(codes))
        gap = torch.from_numpy(self.stretch.gap[run.at])
        return self.model.query_tower.memory(x, gap, run.folded, run.base, run.steps, dropout)

    def _candidates(self, batch: Block) -> Array:
        """[U] sorted item rows that the clicks are told from."""
        if self.full:
            # An item without a click is none: it would be told by that.
            return np.flatnonzero(self.replay.items.clicks > 0)
        drawn = np.concatenate([batch.clicks.items, batch.negatives.ravel()])
        return np.unique(drawn[drawn >= 0])

    def _hide(self, items: Array) -> Tensor:
        """Rows of the id embedding; the ids of some items are hidden in this step, wherever they stand."""
        distinct, place = np.unique(items, return_inverse=True)
        chance = torch.rand(len(distinct), generator=self.random).numpy()
        return torch.from_numpy(np.where(chance < self.hidden[distinct], 0, distinct + 1)[place])

    def _query(self, state: Tensor, inputs: Inputs, dropout: Dropout) -> Tensor:
        """The query tower of states [B, A]."""
        assert inputs.gap is not None
        read = map(torch.from_numpy, (inputs.codes, inputs.dense, inputs.gap))
        return self.model.query_tower(state, *read, dropout)

    def _loss(
        self, p_u: Tensor, p_v: Tensor, batch: Block, candidates: Array, seen: Cells, now_ms: int
    ) -> Tensor | None:
        positives, weights = batch.clicks.items, self.weights_of(batch)
        column = np.searchsorted(candidates, positives)
        rows, columns = seen
        if self.full:
            # The first click of an item is dropped: it would be told by the lack of clicks.
            known = np.append(candidates, -1)[column] == positives
            if not known.any():
                return None
            chosen, kept = torch.from_numpy(known), torch.from_numpy(known)[rows]
            p_u, column, weights = p_u[chosen], column[known], None if weights is None else weights[chosen]
            rows, columns = (torch.cumsum(chosen, 0) - 1)[rows[kept]], columns[kept]
        bias = None if self.full else self.log_bias(batch, candidates, now_ms)
        return losses.softmax(p_u, p_v, torch.from_numpy(column), (rows, columns), bias=bias, weights=weights)

    def export(self) -> dict[str, Array]:
        """The weights, with the closed form if it is asked for."""
        weights = self.model.weights()
        if self.config.closed_rank:
            read, answered = closed_form(self.data, self.config.closed_form)
            weights |= {"item_tower.closed_reading.weight": read, "item_tower.closed.weight": answered}
        return weights

    def item_health(self) -> tuple[float, float]:
        """:func:`health` of the embeddings of a sample of the items."""
        rows = np.unique(np.linspace(0, len(self.data.items) - 1, HEALTH_SAMPLE).astype(np.int64))
        codes = torch.from_numpy(self.data.items.codes[rows])
        with torch.no_grad():
            return health(F.normalize(self.model.item_tower.embed(torch.from_numpy(rows + 1), codes), dim=1).numpy())
