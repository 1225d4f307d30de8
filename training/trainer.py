"""Fit DAT to a window of clicks: towers by gradient, augmented vectors by replay (or by gradient, as published)."""

import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from training import checkpoint, losses
from training.augmented import AugmentedTable, Snapshot
from training.bundle import Bundle, SideTable
from training.clicked import Clicked
from training.collapse import EpochReport, health
from training.config import DATConfig
from training.dat import DAT, represent
from training.examples import Examples, State
from training.features import Inputs, InputSpec
from training.fitted import Fitted
from training.frequency import Frequency
from training.history import before_each, newest, tower_rows
from training.optimiser import Optimiser
from training.towers import Tower
from training.warm_start import warm_start
from training.workers import ALONE, Workers

Array = np.ndarray
HEALTH_SAMPLE = 4096  # items whose vectors are looked at for collapse after each epoch


class Trainer:
    """One run of training. The tables hold a_u and a_v: by replay in ``point_in_time``, else as sparse parameters.

    Args:
        workers: The processes that train together, each with the same examples.
    """

    def __init__(
        self, examples: Examples, query: State, item: State, model: DAT, config: DATConfig, workers: Workers = ALONE
    ):
        self.examples, self.query, self.item, self.model, self.config = examples, query, item, model, config
        self.workers = workers
        self.random = torch.Generator().manual_seed(config.seed)
        self.dim = config.tower.output_dim
        parameters = nn.ModuleDict({"model": model})
        if config.amm == "gradient":
            width = len(config.memories) * self.dim
            for side, size in (("a_u", len(query)), ("a_v", len(item))):
                parameters[side] = nn.Embedding(size + 1, width, sparse=True)
                nn.init.zeros_(parameters[side].weight)
        self.parameters = parameters
        self.optimiser = Optimiser(parameters, config.learning_rate, workers, table_rate=config.table_rate)
        self.queries = examples.query
        if config.latest:
            before = before_each(examples.query_rows, examples.item_rows[:, 0], config.latest, examples.known)
            before[:, query.history.shape[1] :] = -1  # by day no more are kept of a query
            self.queries = replace(examples.query, latest=before + 1)
        self.category = torch.from_numpy(item.category)
        self.frequency = Frequency(examples.item_rows[:, 0])
        self.clicked = Clicked(examples.query_rows, examples.item_rows[:, 0])
        self.batches = examples.batches(config.batch_size)
        self.in_order = config.amm == "point_in_time" and examples.nights is None
        self.nights: dict[int, tuple[Snapshot, Snapshot]] = {}  # of a_u and a_v, by the examples before each night
        self.done = 0  # steps of the whole run, for the learning rate
        self.reset()

    def reset(self) -> None:
        """Empty tables: the replay starts before the window's first click."""
        self.a_u = AugmentedTable(len(self.query), self.config.memories_of("query"), self.dim)
        self.a_v = AugmentedTable(len(self.item), self.config.memories_of("item"), self.dim)

    def epoch(self) -> list[float]:
        """One pass; means of (loss, loss_p, loss_u, loss_v, loss_ca) over the batches.

        In order of time where the tables are filled on the way. Where vectors are a night's, all nights' are made first
        and the batches are mixed: in order, hundreds of steps would see one night and learn it by heart.
        """
        self.reset()
        order = np.arange(len(self.batches))
        if not self.in_order:
            order = torch.randperm(len(order), generator=self.random).numpy()
            if self.config.amm == "point_in_time":
                self.nights = self.replay()
        totals = []
        for number in order:
            self.optimiser.scale(1 - self.done / (self.config.epochs * len(order)))
            self.done += 1
            totals.append(self.step(self.batches[number]))
        return np.mean(totals, axis=0).tolist()

    def run(
        self, on_epoch: Callable[[EpochReport], None] = lambda report: None, file: Path | None = None
    ) -> list[EpochReport]:
        """All epochs, or those that are missing in the checkpoint ``file``, which is written after each."""
        found = checkpoint.load(file) if file else None
        history = [EpochReport(**report) for report in found["history"]] if found else []
        if found:
            self.restore(found)
        for report in history:
            on_epoch(report)
        for epoch in range(len(history) + 1, self.config.epochs + 1):
            started = time.perf_counter()
            parts = self.epoch()
            history.append(EpochReport(epoch, *parts, *self.item_health(), time.perf_counter() - started))
            if file and self.workers.rank == 0:
                checkpoint.save(file, self.state() | {"history": [asdict(report) for report in history]})
            on_epoch(history[-1])
        return history

    def state(self) -> dict[str, Any]:
        """All that the next epoch depends on; the augmented tables begin empty in each."""
        return {
            "parameters": self.parameters.state_dict(),
            "optimiser": self.optimiser.state(),
            "random": self.random.get_state(),
            "done": self.done,
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.parameters.load_state_dict(state["parameters"])
        self.optimiser.restore(state["optimiser"])
        self.random.set_state(state["random"])
        self.done = state["done"]

    def step(self, rows: slice) -> list[float]:
        """Train on one of the batches."""
        examples, config, width = self.examples, self.config, self.examples.candidates
        query = self.queries.take(rows)
        item = examples.item.take(slice(rows.start * width, rows.stop * width))
        size, gather = len(query), self.workers.gather
        mine, mine_v = self.workers.share(size), self.workers.share(size * width)
        rows_u, rows_v = torch.from_numpy(query.rows), torch.from_numpy(item.rows)
        if config.amm == "gradient":
            a_u = gather(self.parameters["a_u"](rows_u[mine]), size)
            a_v = gather(self.parameters["a_v"](rows_v[mine_v]), len(item))
        elif config.amm == "point_in_time":
            if self.in_order:
                before_u, before_v = self._fold(query, item.take(np.arange(0, len(item), width)), item.rows)
            else:
                night_u, night_v = self.nights[examples.nights[rows.start]]
                before_u, before_v = night_u.read(query.rows), night_v.read(item.rows)
            a_u, a_v = torch.from_numpy(before_u), torch.from_numpy(before_v)
        else:
            a_u, a_v = torch.zeros(size, 0), torch.zeros(len(item), 0)
        p_u = gather(self._forward(self.model.query_tower, query, a_u, config.query_id_dropout, mine), size)
        p_v = gather(self._forward(self.model.item_tower, item, a_v, config.item_id_dropout, mine_v), len(item))
        p_v = p_v.view(size, width, -1)
        item_rows = torch.from_numpy(examples.asked[rows])
        if config.loss == "bce":
            loss_p = losses.binary_cross_entropy(p_u, p_v, item_rows >= 0, config.temperature)
        else:
            half = config.frequency_window // 2
            expected = self.frequency.expected(
                examples.item_rows[rows], rows.start - half, rows.stop + half, len(self.item)
            )
            numbers = np.arange(rows.start, rows.stop)
            seen = self.clicked.seen(numbers, examples.query_rows[rows], examples.item_rows[rows])
            loss_p = losses.sampled_softmax(
                p_u, p_v, item_rows, torch.from_numpy(seen), torch.from_numpy(expected).float(), config.temperature
            )
        loss_u = loss_v = loss_ca = torch.zeros(())
        if config.amm == "gradient":
            pairs = size * width
            loss_u = losses.mimic(a_u.view(size, -1, self.dim), p_v[:, 0], pairs)
            loss_v = losses.mimic(a_v.view(size, width, -1, self.dim)[:, 0], p_u, pairs)
        if config.lambda_ca:
            flat = item_rows.ravel()
            category = torch.where(flat >= 0, self.category[flat.clamp(min=0)], 0)
            loss_ca = losses.category_alignment(p_v.flatten(0, 1), category)
        loss = loss_p + config.lambda_u * loss_u + config.lambda_v * loss_v + config.lambda_ca * loss_ca
        self.optimiser.step(loss)
        return [float(part.detach()) for part in (loss, loss_p, loss_u, loss_v, loss_ca)]

    def _forward(self, tower: Tower, inputs: Inputs, augmented: Tensor, id_dropout: float, mine: slice) -> Tensor:
        config, size = self.config, len(inputs)

        def kept(dropout: float, *shape: int) -> Tensor:  # of all rows, so that every process draws the same
            return torch.empty(size, *shape).bernoulli_(1 - dropout, generator=self.random)[mine]

        inputs, latest, scale = inputs.take(mine), None, None
        rows = torch.from_numpy(inputs.rows) * kept(id_dropout).long()
        if inputs.latest is not None:
            latest = torch.from_numpy(inputs.latest).long()
            latest = latest * kept(config.latest_dropout, latest.shape[1]).long()
        if config.embedding_dropout:
            scale = kept(config.embedding_dropout, tower.embedded) / (1 - config.embedding_dropout)
        codes, dense = torch.from_numpy(inputs.codes).long(), torch.from_numpy(inputs.dense)
        return tower(rows, codes, dense, augmented[mine], latest, scale)

    def _fold(self, query: Inputs, positive: Inputs, candidates: Array | None = None) -> tuple[Array, Array]:
        """Fold a batch of positives; what a_u held before each, and a_v of the candidates as of the batch's start.

        The order is that of the day's stream: p_v from the item's state, a_u just before each click of the batch (a
        query may click many times in it, and the clicks just before say the most), p_u from that, then a_v.
        """
        before_v = self.a_v.read(positive.rows if candidates is None else candidates)
        p_v = represent(self.model.item_tower, positive, self.a_v.read(positive.rows))
        before_u = self.a_u.fold(query.rows, p_v)
        p_u = represent(self.model.query_tower, query, before_u)
        self.a_v.fold(positive.rows, p_u)
        return before_u, before_v

    def replay(self) -> dict[int, tuple[Snapshot, Snapshot]]:
        """Fold the whole window with the weights as they are; what each night's vectors were of the ids of its day."""
        examples, width, nights = self.examples, self.examples.candidates, {}
        self.reset()
        for rows in self.batches:
            if examples.nights is not None and (night := int(examples.nights[rows.start])) not in nights:
                start, stop = rows.start, int(np.searchsorted(examples.nights, night, "right"))
                nights[night] = (
                    self.a_u.snapshot(self.queries.rows[start:stop]),
                    self.a_v.snapshot(examples.item.rows[start * width : stop * width]),
                )
            positives = examples.item.take(np.arange(rows.start * width, rows.stop * width, width))
            self._fold(self.queries.take(rows), positives)
        return nights

    def settle(self) -> None:
        """Fill the tables for the cut: a last replay with the final weights, so that all vectors lie in one space."""
        config, examples = self.config, self.examples
        if config.amm == "point_in_time":
            self.replay()
        elif config.amm == "gradient":
            positives = examples.item.rows[:: examples.candidates]
            for table, name, rows in ((self.a_u, "a_u", examples.query.rows), (self.a_v, "a_v", positives)):
                table.a = self.parameters[name].weight.detach().numpy().reshape(table.a.shape)
                table.folded = np.bincount(rows, minlength=len(table.a))

    def item_health(self) -> tuple[float, float]:
        """:func:`health` of a sample of items as they stand in the last batch of the epoch."""
        rows = np.linspace(0, len(self.examples.item) - 1, HEALTH_SAMPLE).astype(np.int64)
        inputs = self.examples.item.take(rows)
        if self.config.amm == "gradient":
            augmented = self.parameters["a_v"].weight.detach().numpy()[inputs.rows]
        else:
            augmented = self.a_v.read(inputs.rows)
        return health(represent(self.model.item_tower, inputs, augmented))

    def side_table(self, state: State, tower: Tower, spec: InputSpec, table: AugmentedTable, cut_ms: int) -> SideTable:
        inputs = state.inputs(spec, np.full(len(state), cut_ms, np.int64))
        if tower.latest is not None:
            history = newest(state.history, state.clicks, self.config.latest)
            inputs = replace(inputs, latest=tower_rows(history, len(self.item)))
        augmented, folded = table.a[1:], table.folded[1:]
        return SideTable(
            ids=state.ids,
            codes=state.profile.codes,
            numbers=state.profile.numbers,
            times=state.profile.times,
            a=augmented,
            folded=folded,
            clicks=state.clicks,
            counters=state.counters,
            last_click=state.last_click,
            history=state.history,
            vectors=represent(tower, inputs, augmented),
        )


def make_trainer(
    examples: Examples,
    query: State,
    item: State,
    query_spec: InputSpec,
    item_spec: InputSpec,
    config: DATConfig,
    initial: Bundle | None = None,
    workers: Workers = ALONE,
) -> Trainer:
    """A trainer before its first epoch; the arguments are those of :func:`fit`."""
    torch.manual_seed(config.seed)
    model = DAT(len(query), len(item), query_spec, item_spec, config)
    model.query_tower.standardise(torch.from_numpy(examples.query.dense))
    model.item_tower.standardise(torch.from_numpy(examples.item.dense))
    if initial is not None:
        warm_start(model, query.ids, item.ids, query_spec, item_spec, initial)
    return Trainer(examples, query, item, model, config, workers)


def fit(
    examples: Examples,
    query: State,
    item: State,
    query_spec: InputSpec,
    item_spec: InputSpec,
    config: DATConfig,
    initial: Bundle | None = None,
    on_epoch: Callable[[EpochReport], None] = lambda report: None,
    cut_ms: int | None = None,
    checkpoint_file: Path | None = None,
) -> Fitted:
    """Train DAT on a window of examples.

    Args:
        examples: In order of time.
        query, item: The states at the cut.
        initial: Start from this bundle's weights, where sizes and ids allow. Its augmented vectors are not taken over:
            they lie in another space, and have absorbed clicks of this window.
        on_epoch: Called after each epoch.
        cut_ms: The moment of the vectors in the result; the last example's by default.
        checkpoint_file: Written after each epoch. Where it exists, left by a run with the same arguments, training goes
            on from there and ends in the same result.
    """
    trainer = make_trainer(examples, query, item, query_spec, item_spec, config, initial)
    history = trainer.run(on_epoch, checkpoint_file)
    trainer.settle()
    model = trainer.model.eval()
    cut = int(examples.event_time[-1]) if cut_ms is None else cut_ms
    queries = trainer.side_table(query, model.query_tower, query_spec, trainer.a_u, cut)
    items = trainer.side_table(item, model.item_tower, item_spec, trainer.a_v, cut)
    return Fitted(model, queries, items, query_spec, item_spec, config, history)
