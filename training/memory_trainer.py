"""Training of learned memories: a replay in time order, whose gradient flows through a query's last clicks.

A batch is a block of consecutive clicks. Each of its queries is run again from a state that is carried as it is, over
at most ``span`` clicks; the block's clicks are predicted, all items being as of the block's start.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from model.features import Inputs
from model.folds import gap_of
from model.replay import NO_TOWERS, Replay
from model.scan import Groups
from model.settings.model import DATConfig
from training import losses
from training.chosen import is_full
from training.closed_form import closed_form
from training.diagnostics import health
from training.memory import Dropout, MemoryDAT, Steps
from training.optimiser import Optimiser
from training.trainer import HEALTH_SAMPLE, Trainer

Array = np.ndarray
CLIP = 5.0  # the gradient's largest norm
QUIET = Dropout(0.0, None)


class _Run(NamedTuple):
    """T clicks of G queries, each query's from its base on, the query with most of them first.

    numbers: [T] in the window · folded: [T] clicks before each · begin: [G] clicks that the base has folded ·
    base: [G, A] · slot: [G] where each of the asked keys stands.
    """

    numbers: Array
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
            trainer.by_query.order[trainer.starts[keys[order]][sequence] + rank],
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
        clicks = data.clicks
        # One order of all clicks by query: a query's clicks of any stretch are a slice of it.
        self.by_query = Groups.of(clicks.queries, len(data.queries))
        self.starts = np.searchsorted(clicks.queries[self.by_query.order], np.arange(len(data.queries)))
        self.gap = _gaps(self.by_query, data.queries.last_click, clicks.times, config)
        self.dropout = Dropout(config.memory.dropout, self.random)
        count = np.bincount(clicks.items, minlength=len(data.items))
        rare = config.memory.rare_clicks
        self.hidden = np.maximum(config.item_id_dropout, rare / np.maximum(rare + count, 1)).astype(np.float32)
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
        return replay

    def epoch(self) -> list[float]:
        self.replay = self.restart()
        clicks, size, totals = self.data.clicks, self.config.batch_size, []
        for rows in clicks.blocks(size):
            block, now = clicks[rows], int(clicks.times[rows.start])
            observed = self.replay.observe(block, NO_TOWERS)
            folded, _ = observed.fold.before()
            first = self.by_query.rank[rows] - observed.fold.groups.rank  # clicks before the block
            visible = first + observed.visible
            known = folded
            if self.config.memory.same_moment:
                visible = self.by_query.rank[rows]
            else:
                known, _ = observed.before()
            signals = np.zeros((len(block), self.config.signal_dim), np.float32)
            for part in np.array_split(np.arange(len(block)), max(1, round(len(block) / size))):
                self.optimiser.scale(max(0.0, 1 - self.done))
                numbers = rows.start + part
                loss, signals[part] = self.step_memory(
                    numbers,
                    known.take(part),
                    visible[part],
                    folded.take(part),
                    first[part] + observed.visible[part],
                    now,
                )
                totals.append([loss] * 2 + [0.0] * 3)
                self.done += len(numbers) / (len(clicks) * self.config.epochs)
            self.replay.apply(block, observed, signals)
        return np.mean(totals, axis=0).tolist()

    def step_memory(
        self, numbers: Array, known: Inputs, visible: Array, folded: Inputs, moment: Array, now_ms: int
    ) -> tuple[float, Array]:
        """Train on some clicks of one block; returns the loss and the signals [B, d] for the items.

        Args:
            numbers: [B] the clicks' numbers in the window, ascending. known: what predicts them, visible: [B] clicks of
                its query that each knows. folded: the same in the order of the fold, whose vectors the items take in.
            moment: [B] clicks of its query before each one's moment. now_ms: the block's start.
        """
        data, tower = self.data, self.model.item_tower
        positives, rank = data.clicks.items[numbers], self.by_query.rank[numbers]
        keys, group = np.unique(data.clicks.queries[numbers], return_inverse=True)
        end = np.zeros(len(keys), np.int64)
        np.maximum.at(end, group, rank + 1)
        run = _Run.of(self, keys, end)
        candidates = self._candidates(numbers, now_ms)
        rows = self._hide(np.concatenate([data.clicks.items[run.numbers], candidates]))
        states = self._memory(run, rows[: len(run.numbers)], self.dropout)
        inputs, a_v = self.replay.item_inputs(candidates, now_ms)
        p_v = tower(rows[len(run.numbers) :], *map(torch.from_numpy, (inputs.codes, inputs.dense, a_v)))
        p_u = self._query(run.after(states, group, visible), known, self.dropout)
        loss = self._loss(p_u, p_v, numbers, positives, candidates, now_ms)
        if loss is not None:
            self.optimiser.step(loss)
        with torch.no_grad():
            signals = self._query(run.after(states.detach(), group, rank), folded, QUIET)
        newest = np.zeros(len(keys), np.int64)
        newest[group] = moment
        self._carry(keys, np.minimum(end - self.config.memory.span // 2, newest), end)
        return 0.0 if loss is None else float(loss.detach()), signals[:, : self.config.signal_dim].numpy()

    @torch.no_grad()
    def _carry(self, keys: Array, to: Array, end: Array) -> None:
        """Fold the oldest clicks of queries that have more than ``span`` since their base: the next steps' start."""
        moved = (end - self.base_at[keys] > self.config.memory.span) & (to > self.base_at[keys])
        keys, to = keys[moved], to[moved]
        if len(keys):
            run = _Run.of(self, keys, to)
            states = self._memory(run, torch.from_numpy(self.data.clicks.items[run.numbers] + 1), QUIET)
            self.base[keys], self.base_at[keys] = run.after(states, np.arange(len(keys)), to).numpy(), to

    def _memory(self, run: "_Run", rows: Tensor, dropout: Dropout) -> Tensor:
        """States [T, A] after each click of a run, whose items have these ``rows`` [T] of the id embedding."""
        codes = self.data.items.codes[self.data.clicks.items[run.numbers]]
        x = self.model.item_tower.embed(rows, torch.from_numpy(codes))
        gap = torch.from_numpy(self.gap[run.numbers])
        return self.model.query_tower.memory(x, gap, run.folded, run.base, run.steps, dropout)

    def _candidates(self, numbers: Array, now_ms: int) -> Array:
        """[U] sorted item rows that the clicks are told from."""
        if self.full:
            # An item without a click is none: it would be told by that.
            return np.flatnonzero(self.replay.items.clicks > 0)
        drawn = np.concatenate([self.data.clicks.items[numbers], self.data.negatives[numbers].ravel()])
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
        self, p_u: Tensor, p_v: Tensor, numbers: Array, positives: Array, candidates: Array, now_ms: int
    ) -> Tensor | None:
        column = np.searchsorted(candidates, positives)
        if self.full:
            # The first click of an item is dropped: it would be told by the lack of clicks.
            known = np.append(candidates, -1)[column] == positives
            numbers, positives, column, p_u = (
                numbers[known],
                positives[known],
                column[known],
                p_u[torch.from_numpy(known)],
            )
            if not len(numbers):
                return None
        target = torch.from_numpy(column)
        seen = self.seen.of(numbers, self.data.clicks.queries[numbers], positives, candidates)
        bias = None if self.full else self.log_bias(numbers, positives, candidates, now_ms)
        pairs = torch.from_numpy(seen[0]), torch.from_numpy(seen[1])
        return losses.softmax(p_u, p_v, target, pairs, bias=bias, weights=self.weights_of(numbers))

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


def _gaps(groups: Groups, last_click: Array, times: Array, config: DATConfig) -> Array:
    """[N, 5] of each click: the time since its query's click before, in the order of the fold."""
    from model.scan import running_maximum

    ordered, key = times[groups.order], groups.key[groups.order]
    first = groups.rank[groups.order] == 0
    latest = running_maximum(groups, np.maximum(ordered, np.where(first, last_click[key], 0)))
    previous = np.empty(len(times), np.int64)
    previous[groups.order] = np.where(first, last_click[key], np.r_[0, latest[:-1]][: len(latest)])
    gap = gap_of(config, previous, times)
    assert gap is not None
    return gap
