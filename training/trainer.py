"""Fit DAT to a window of clicks: towers by gradient, augmented vectors by replay.

The trainer here is the preset ``amm``'s; ``training/memory_trainer.py`` and ``training/paper.py`` have the others'.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from model.bundle import Bundle
from model.features import Inputs
from model.replay import NO_TOWERS, Replay, TowerPair
from model.settings.model import ACTIVITY, DATConfig
from model.state import EntityState
from model.towers import Towers
from training import checkpoint, losses
from training.block import Block
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
CHECKPOINT_SECONDS = 600  # between two checkpoints within an epoch
CHANGES = ("a", "update_count", "clicks", "counters", "last_click", "recent_items")  # columns that a replay writes
OnEpoch = Callable[[EpochReport], None]


class Trainer:
    """One run of training: each epoch replays the window in time order, a gradient step a batch.

    Of the clicks it holds a batch and half a ``logq_window`` on both sides of it, of the ids everything.
    """

    def __init__(self, data: TrainingSet, config: DATConfig, initial: Bundle | None = None):
        self.data, self.config = data, config
        torch.manual_seed(config.seed)
        self.model = self._make_model()
        self._look_through()
        if initial is not None:
            warm_start(self.model, data, config, initial)
        self.random = torch.Generator().manual_seed(config.seed)
        self.parameters = self._parameters()
        self.optimiser = self._make_optimiser()
        self.since = np.sort(data.items.since)
        self.done = 0.0  # clicks of all epochs so far, as a share of all that there will be
        self._prepare()
        self.begin()

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

    def begin(self) -> None:
        """Before the first click of an epoch."""
        self.replay = self.restart()
        self.frequency = ItemFrequency(len(self.data.items), len(self.data))
        self.position, self.steps, self.totals = 0, 0, np.zeros(5)

    def restart(self) -> Replay:
        """Both sides as before the window's first click."""
        data, config, sides = self.data, self.config, []
        for state, width in ((data.queries, config.query_state_dim), (data.items, config.item_state_dim)):
            state = state.copy()
            state.columns["a"] = np.zeros((len(state), width), np.float32)
            sides.append(state)
        queries, items = sides
        return Replay(queries, items, data.query_spec, data.item_spec, self.config)

    def _look_through(self) -> None:
        """One pass over the clicks: what is learnt of the window as a whole.

        That is the scales of the dense inputs, as the steps of an epoch will read them, each item's clicks, what a
        click weighs on average, and the time of the last one.
        """
        data = self.data
        replay = Replay(data.queries.copy(), data.items.copy(), data.query_spec, data.item_spec, ACTIVITY)
        query, item, weight = Scale(), Scale(), 0.0
        for block in data.blocks(self.config.batch_size):
            clicks = block.clicks
            query.add(replay.observe(clicks, NO_TOWERS).before()[0].dense)
            candidates = np.concatenate([clicks.items, block.negatives.ravel()])
            item.add(replay.item_inputs(candidates[candidates >= 0], block.time)[0].dense)
            weight += len(clicks) if clicks.weights is None else float(clicks.weights.sum(dtype=np.float64))
            self.last_ms = int(clicks.times[-1])
            replay.count(clicks)
        self.model.query_tower.standardise(query)
        self.model.item_tower.standardise(item)
        self.mean_weight = np.float32(weight / max(len(data), 1))
        self.clicks_of = replay.items.clicks - data.items.clicks

    def epoch(self, on_block: Callable[[], None] = lambda: None) -> list[float]:
        """One pass in time order, or the rest of one; means over the batches of the loss and its parts (see
        :class:`EpochReport`).

        Args:
            on_block: Called after each block, when :meth:`state` may be taken.
        """
        if not self.position:
            self.begin()
        for block in self._blocks():
            self.train(block)
            self.position = block.stop
            on_block()
        self.position = 0
        return (self.totals / self.steps).tolist()

    def _blocks(self) -> Iterator[Block]:
        """The blocks from where the epoch stands, each when what follows it in half a ``logq_window`` has been read."""
        half, waiting = self.config.logq_window // 2, deque[Block]()
        for block in self.data.blocks(self.config.batch_size, self.position):
            self.frequency.read(block.clicks.items)
            waiting.append(block)
            while waiting and waiting[0].stop + half <= self.frequency.read_to:
                yield waiting.popleft()
        yield from waiting

    def _parts(self, block: Block) -> Iterator[slice]:
        """A block in batches, each with its learning rate set and the clicks around it counted."""
        half = self.config.logq_window // 2
        for rows in block.parts(self.config.batch_size):
            self.optimiser.scale(max(0.0, 1 - self.done))
            self.frequency.move(block.start + rows.start - half, block.start + rows.stop + half)
            yield rows
            self.done += (rows.stop - rows.start) / (len(self.data) * self.config.epochs)

    def _add(self, losses: list[float]) -> None:
        self.totals += losses
        self.steps += 1

    def train(self, block: Block) -> None:
        """Train on a block, all of it as of its start, and fold it."""
        observed = self.replay.observe(block.clicks, self.towers)
        query, a_u = observed.before()
        seen = SeenMask(observed.fold, self.data.excludes_seen)
        for rows in self._parts(block):
            self._add(self.step(block, rows, query.take(rows), a_u[rows], seen))
        self.replay.advance(block.clicks, observed, self.towers)

    def step(self, block: Block, rows: slice, query: Inputs, a_u: Array, seen: SeenMask) -> list[float]:
        """Train on some clicks of a block, as of whose start all items are.

        Args:
            rows: Their places in it. query, a_u: what is known before each. seen: of the block.
        """
        config, batch = self.config, block.part(rows)
        every = np.concatenate([batch.clicks.items, batch.negatives.ravel()])
        candidates = np.unique(every[every >= 0])
        p_u = self._forward(self.model.query_tower, query, a_u, config.query_id_dropout)
        p_v = self._forward(
            self.model.item_tower, *self.replay.item_inputs(candidates, block.time), config.item_id_dropout
        )
        target = torch.from_numpy(np.searchsorted(candidates, batch.clicks.items))
        loss = losses.softmax(
            p_u, p_v, target, seen.of(rows, candidates), config.temperature,
            self.log_bias(batch, candidates, block.time), self.weights_of(batch),
        )  # fmt: skip
        self.optimiser.step(loss)
        return [float(loss.detach())] * 2 + [0.0] * 3

    def log_bias(self, batch: Block, candidates: Array, now_ms: int) -> tuple[Tensor, Tensor]:
        """The logQ correction of a batch: of the candidates [U], and of the positives' own cells [B]."""
        every = np.concatenate([batch.clicks.items, batch.negatives.ravel()])
        counts = np.bincount(np.searchsorted(candidates, every[every >= 0]), minlength=len(candidates))
        uniform = batch.negatives.shape[1] / max(int(np.searchsorted(self.since, now_ms)), 1)
        bias = np.log(counts) - self.frequency.log_expected(candidates, uniform)
        own = -self.frequency.log_expected(batch.clicks.items, uniform, own=1)
        return torch.from_numpy(bias.astype(np.float32)), torch.from_numpy(own.astype(np.float32))

    def weights_of(self, batch: Block) -> Tensor | None:
        """What the losses of some clicks [B] weigh, 1 on average over the window; None: 1 each."""
        weights = batch.clicks.weights
        return None if weights is None else torch.from_numpy(weights / self.mean_weight)

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
        """All epochs, or what is missing of them in the checkpoint ``file``.

        It is written after each epoch, and within one every :data:`CHECKPOINT_SECONDS`.
        """
        saved = checkpoint.load(file) if file else None
        reports = [EpochReport(**report) for report in saved["reports"]] if saved else []
        if saved:
            self.load_state(saved)
        for report in reports:
            on_epoch(report)
        saved_at = time.perf_counter()

        def save() -> None:
            nonlocal saved_at
            if file:
                checkpoint.save(file, self.state() | {"reports": [asdict(report) for report in reports]})
            saved_at = time.perf_counter()

        def save_now_and_then() -> None:
            if time.perf_counter() - saved_at > CHECKPOINT_SECONDS:
                save()

        for epoch in range(len(reports) + 1, self.config.epochs + 1):
            started = time.perf_counter()
            loss, loss_p, loss_u, loss_v, loss_ca = self.epoch(save_now_and_then)
            rank, dead = self.item_health()
            seconds = time.perf_counter() - started
            reports.append(EpochReport(epoch, loss, loss_p, loss_u, loss_v, loss_ca, rank, dead, seconds))
            save()
            on_epoch(reports[-1])
        return reports

    def state(self) -> dict[str, Any]:
        """All that the next click to train on depends on; between epochs both sides begin anew."""
        state = {
            "parameters": self.parameters.state_dict(),
            "optimiser": self.optimiser.state(),
            "random": self.random.get_state(),
            "done": self.done,
            "position": self.position,
        }
        return state | self.within_epoch() if self.position else state

    def within_epoch(self) -> dict[str, Any]:
        """What of the state there is within an epoch alone."""
        ahead, frequency = self.position - self.frequency.start, self.frequency
        return {
            "steps": self.steps, "totals": torch.from_numpy(self.totals),
            "counted": frequency.start, "around": torch.from_numpy(frequency.held[:ahead]),
            "sides": [
                {name: torch.from_numpy(side.columns[name]) for name in CHANGES}
                for side in (self.replay.queries, self.replay.items)
            ],
        }  # fmt: skip

    def load_state(self, state: dict[str, Any]) -> None:
        self.parameters.load_state_dict(state["parameters"])
        self.optimiser.load_state(state["optimiser"])
        self.random.set_state(state["random"])
        self.done = state["done"]
        if state.get("position"):  # a release before has none
            self.begin()
            self.position = state["position"]
            self.load_within_epoch(state)

    def load_within_epoch(self, state: dict[str, Any]) -> None:
        self.steps, self.totals = state["steps"], state["totals"].numpy()
        self.frequency = ItemFrequency(len(self.data.items), len(self.data), state["counted"])
        self.frequency.read(state["around"].numpy())
        for side, columns in zip((self.replay.queries, self.replay.items), state["sides"], strict=True):
            side.columns |= {name: values.numpy() for name, values in columns.items()}

    def item_health(self) -> tuple[float, float]:
        """:func:`health` of a sample of the items as they are at the end of the epoch."""
        rows = np.unique(np.linspace(0, len(self.data.items) - 1, HEALTH_SAMPLE).astype(np.int64))
        return health(self.towers.item(*self.replay.item_inputs(rows, self.last_ms)))

    def settle(self) -> tuple[EntityState, EntityState]:
        """Both sides at the cut: a last replay with the final weights, so that all vectors lie in one space."""
        replay, towers = Trainer.restart(self), self.numpy_towers()
        self.replay_with(replay, towers)
        return replay.queries, replay.items

    def replay_with(self, replay: Replay, towers: TowerPair) -> None:
        """Fold all clicks of the window."""
        for block in self.data.blocks(self.config.batch_size):
            replay.advance(block.clicks, replay.observe(block.clicks, towers), towers)

    def export(self) -> dict[str, Array]:
        """The weights by name."""
        return self.model.weights()

    def numpy_towers(self) -> Towers:
        """The towers as day and answer run them."""
        return Towers.of(self.export(), self.data.query_spec, self.data.item_spec, self.config)
