"""Fit DAT to a window of clicks: towers by gradient, augmented vectors by replay.

The trainer here is the preset ``amm``'s; ``training/memory_trainer.py`` and ``training/paper.py`` have the others'.
"""

import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from model.bundle import Bundle
from model.features import Inputs
from model.replay import NO_TOWERS, Replay
from model.settings.model import ACTIVITY, DATConfig
from model.state import EntityState
from model.towers import Towers
from training import checkpoint, losses
from training.dat import DAT, TorchTowers, as_tensors
from training.diagnostics import EpochReport, health
from training.logq import ItemFrequency
from training.optimiser import Optimiser
from training.seen_mask import SeenMask
from training.towers import Scale, Tower
from training.training_set import TrainingSet
from training.warm_start import warm_start

Array = np.ndarray
HEALTH_SAMPLE = 4096  # items whose vectors are looked at for collapse after each epoch
OnEpoch = Callable[[EpochReport], None]


class Trainer:
    """One run of training: each epoch replays the window in time order, a gradient step a batch."""

    def __init__(self, data: TrainingSet, config: DATConfig, initial: Bundle | None = None):
        self.data, self.config = data, config
        torch.manual_seed(config.seed)
        self.model = self._make_model()
        self._learn_scales()
        if initial is not None:
            warm_start(self.model, data, config, initial)
        self.random = torch.Generator().manual_seed(config.seed)
        self.parameters = self._parameters()
        self.optimiser = self._make_optimiser()
        clicks = data.clicks
        self.frequency = ItemFrequency(clicks.items)
        self.seen = SeenMask(clicks.queries, clicks.items, data.excludes_seen)
        self.since = np.sort(data.items.since)
        self.done = 0.0  # clicks of all epochs so far, as a share of all that there will be
        self._prepare()
        self.replay = self.restart()

    def _make_model(self) -> Any:
        data = self.data
        return DAT(len(data.queries), len(data.items), data.query_spec, data.item_spec, self.config)

    def _make_optimiser(self) -> Optimiser:
        config = self.config
        return Optimiser(self.parameters, config.learning_rate, embedding_scale=config.embedding_lr_scale)

    def _prepare(self) -> None:
        self.towers = TorchTowers(self.model, self.config)

    def _parameters(self) -> torch.nn.Module:
        """Everything that learns."""
        return self.model

    def restart(self) -> Replay:
        """Both sides as before the window's first click."""
        data, config, sides = self.data, self.config, []
        for state, width in ((data.queries, config.query_state_dim), (data.items, config.item_state_dim)):
            state = state.copy()
            state.columns["a"] = np.zeros((len(state), width), np.float32)
            sides.append(state)
        queries, items = sides
        return Replay(queries, items, data.query_spec, data.item_spec, self.config)

    def _learn_scales(self) -> None:
        """Learn the scales of the dense inputs, as the steps of an epoch will read them."""
        data = self.data
        replay = Replay(data.queries.copy(), data.items.copy(), data.query_spec, data.item_spec, ACTIVITY)
        query, item = Scale(), Scale()
        for rows in data.clicks.blocks(self.config.batch_size):
            block = data.clicks[rows]
            query.add(replay.observe(block, NO_TOWERS).before()[0].dense)
            candidates = np.concatenate([block.items, data.negatives[rows].ravel()])
            item.add(replay.item_inputs(candidates[candidates >= 0], int(block.times[0]))[0].dense)
            replay.count(block)
        self.model.query_tower.standardise(query)
        self.model.item_tower.standardise(item)

    def epoch(self) -> list[float]:
        """One pass in time order; means over the batches of the loss and its parts (see :class:`EpochReport`)."""
        self.replay = self.restart()
        clicks, size = self.data.clicks, self.config.batch_size
        totals = []
        for rows in clicks.blocks(size):
            block = clicks[rows]
            now = int(block.times[0])
            observed = self.replay.observe(block, self.towers)
            query, a_u = observed.before()
            # A moment that is larger than a batch is one block, all of it as of the moment's start, in several steps.
            for part in np.array_split(np.arange(len(block)), max(1, round(len(block) / size))):
                self.optimiser.scale(max(0.0, 1 - self.done))
                numbers = rows.start + part
                totals.append(self.step(numbers, query.take(part), a_u[part], now))
                self.done += len(numbers) / (len(clicks) * self.config.epochs)
            self.replay.advance(block, observed, self.towers)
        return np.mean(totals, axis=0).tolist()

    def step(self, numbers: Array, query: Inputs, a_u: Array, now_ms: int) -> list[float]:
        """Train on some clicks of one block.

        Args:
            numbers: [B] the clicks' numbers in the window. query, a_u: what is known before each. now_ms: the block's
                start, as of which all items are.
        """
        data, config = self.data, self.config
        positives, negatives = data.clicks.items[numbers], data.negatives[numbers]
        every = np.concatenate([positives, negatives.ravel()])
        candidates = np.unique(every[every >= 0])
        p_u = self._forward(self.model.query_tower, query, a_u, config.query_id_dropout)
        p_v = self._forward(self.model.item_tower, *self.replay.item_inputs(candidates, now_ms), config.item_id_dropout)
        target = torch.from_numpy(np.searchsorted(candidates, positives))
        rows, columns = self.seen.of(numbers, data.clicks.queries[numbers], positives, candidates)
        loss = losses.softmax(
            p_u, p_v, target, (torch.from_numpy(rows), torch.from_numpy(columns)), config.temperature,
            self.log_bias(numbers, positives, candidates, now_ms), self.weights_of(numbers),
        )  # fmt: skip
        self.optimiser.step(loss)
        return [float(loss.detach())] * 2 + [0.0] * 3

    def log_bias(self, numbers: Array, positives: Array, candidates: Array, now_ms: int) -> tuple[Tensor, Tensor]:
        """The logQ correction of a batch: of the candidates [U], and of the positives' own cells [B]."""
        half, negatives = self.config.logq_window // 2, self.data.negatives[numbers]
        every = np.concatenate([positives, negatives.ravel()])
        counts = np.bincount(np.searchsorted(candidates, every[every >= 0]), minlength=len(candidates))
        first, last = int(numbers[0]) - half, int(numbers[-1]) + 1 + half
        uniform = negatives.shape[1] / max(int(np.searchsorted(self.since, now_ms)), 1)
        bias = np.log(counts) - self.frequency.log_expected(candidates, first, last, uniform)
        own = -self.frequency.log_expected(positives, first, last, uniform, own=1)
        return torch.from_numpy(bias.astype(np.float32)), torch.from_numpy(own.astype(np.float32))

    def weights_of(self, numbers: Array) -> Tensor | None:
        """What the losses of some clicks [B] weigh, 1 on average over the window; None: 1 each."""
        weights = self.data.clicks.weights
        return None if weights is None else torch.from_numpy(weights[numbers] / weights.mean())

    def _forward(self, tower: Tower, inputs: Inputs, augmented: Array | Tensor, id_dropout: float) -> Tensor:
        config, size = self.config, len(inputs)

        def kept(dropout: float, *shape: int) -> Tensor:
            return torch.empty(size, *shape).bernoulli_(1 - dropout, generator=self.random)

        rows, codes, dense = as_tensors(inputs)
        rows = rows * kept(id_dropout).long()
        recent = scale = None
        if inputs.recent is not None:
            recent = torch.from_numpy(inputs.recent).long()
            recent = recent * kept(config.recent_dropout, recent.shape[1]).long()
        if config.embedding_dropout:
            scale = kept(config.embedding_dropout, tower.embedded) / (1 - config.embedding_dropout)
        if isinstance(augmented, np.ndarray):
            augmented = torch.from_numpy(augmented)
        return tower(rows, codes, dense, augmented, recent, scale)

    def run(self, on_epoch: OnEpoch = lambda report: None, file: Path | None = None) -> list[EpochReport]:
        """All epochs, or those that are missing in the checkpoint ``file``, which is written after each."""
        saved = checkpoint.load(file) if file else None
        reports = [EpochReport(**report) for report in saved["reports"]] if saved else []
        if saved:
            self.load_state(saved)
        for report in reports:
            on_epoch(report)
        for epoch in range(len(reports) + 1, self.config.epochs + 1):
            started = time.perf_counter()
            loss, loss_p, loss_u, loss_v, loss_ca = self.epoch()
            rank, dead = self.item_health()
            seconds = time.perf_counter() - started
            reports.append(EpochReport(epoch, loss, loss_p, loss_u, loss_v, loss_ca, rank, dead, seconds))
            if file:
                checkpoint.save(file, self.state() | {"reports": [asdict(report) for report in reports]})
            on_epoch(reports[-1])
        return reports

    def state(self) -> dict[str, Any]:
        """All that the next epoch depends on; the augmented vectors begin empty in each."""
        return {
            "parameters": self.parameters.state_dict(),
            "optimiser": self.optimiser.state(),
            "random": self.random.get_state(),
            "done": self.done,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        self.parameters.load_state_dict(state["parameters"])
        self.optimiser.load_state(state["optimiser"])
        self.random.set_state(state["random"])
        self.done = state["done"]

    def item_health(self) -> tuple[float, float]:
        """:func:`health` of a sample of the items as they are at the end of the epoch."""
        rows = np.unique(np.linspace(0, len(self.data.items) - 1, HEALTH_SAMPLE).astype(np.int64))
        return health(self.towers.item(*self.replay.item_inputs(rows, int(self.data.clicks.times[-1]))))

    def settle(self) -> tuple[EntityState, EntityState]:
        """Both sides at the cut: a last replay with the final weights, so that all vectors lie in one space."""
        replay, towers, clicks = Trainer.restart(self), self.numpy_towers(), self.data.clicks
        for rows in clicks.blocks(self.config.batch_size):
            replay.advance(clicks[rows], replay.observe(clicks[rows], towers), towers)
        return replay.queries, replay.items

    def export(self) -> dict[str, Array]:
        """The weights by name."""
        return self.model.weights()

    def numpy_towers(self) -> Towers:
        """The towers as day and answer run them."""
        return Towers.of(self.export(), self.data.query_spec, self.data.item_spec, self.config)
