"""What the neural rivals share: one or more query vectors against an item vector, sampled softmax, live item vectors.

A rival is a module with a few lines of its own: how it makes query vectors of profile, activity and history, and how it
makes item vectors. Training set, loss, batch size and optimiser are those of DAT.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from evaluation.baselines.clicked_before import ClickedBefore
from evaluation.baselines.clicks_by_item import ClicksByItem
from evaluation.ranks import Vectors, VectorScorer
from evaluation.test_clicks import TestClicks
from model.features import Inputs
from model.folds import query_inputs
from model.replay import NO_TOWERS, ItemTable, Replay
from model.settings.model import DATConfig
from training import losses
from training.logq import log_expected
from training.optimiser import Optimiser
from training.training_set import TrainingSet

Array = np.ndarray


class RivalConfig(BaseModel):
    """What every neural rival is trained with."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    dim: int = 32
    history: int = 20
    """L, how many of a query's recent items a model reads."""
    interests: int = 4
    """K, the query vectors of MIND and MVKE."""
    temperature: float = 15.0
    batch_size: int = 256
    epochs: int = 5
    learning_rate: float = 1e-3
    query_id_dropout: float = 0.1
    """Share of examples whose query id is replaced by the unknown one, which trains that one."""
    logq_window: int = 4096
    """As DAT's (:class:`model.settings.model.DATConfig`), where batches are of one moment."""
    seed: int = 0

    @property
    def replayed(self) -> DATConfig:
        """What the replay keeps for such a model: activity and recent items, and no augmented vectors."""
        return DATConfig(preset="amm", ema_alphas=(), recent_items=self.history)


@dataclass(frozen=True)
class Batch:
    """Consecutive clicks ``rows``, and their candidates [U] as of the batch's start."""

    rows: Array
    candidates: Array
    item: Inputs


@dataclass(frozen=True)
class Prepared:
    """A training set as the rivals learn from it: what is known before each click [N], and batches of one moment."""

    query: Inputs
    batches: list[Batch]

    @classmethod
    def of(cls, data: TrainingSet, config: RivalConfig) -> "Prepared":
        replay = Replay(data.queries.copy(), data.items.copy(), data.query_spec, data.item_spec, config.replayed)
        query, batches = [], []
        for block in data.blocks(config.batch_size):
            query.append(replay.observe(block.clicks, NO_TOWERS).before()[0])
            for rows in block.parts(config.batch_size):
                part = block.part(rows)
                every = np.concatenate([part.clicks.items, part.negatives.ravel()])
                candidates = np.unique(every[every >= 0])
                inputs = replay.item_inputs(candidates, block.time)[0]
                batches.append(Batch(np.arange(part.start, part.stop), candidates, inputs))
            replay.count(block.clicks)
        ids, codes, dense = (
            np.concatenate([getattr(part, name) for part in query]) for name in ("rows", "codes", "dense")
        )
        return cls(Inputs(ids, codes, dense, np.concatenate([part.recent for part in query])), batches)

    @property
    def item_dense(self) -> Array:
        """Dense item inputs of all batches, to learn their scale from."""
        return np.concatenate([batch.item.dense for batch in self.batches])


def recent_rows(inputs: Inputs) -> Tensor:
    """[N, L] rows of recent items, newest first (0 = none)."""
    assert inputs.recent is not None
    return torch.from_numpy(np.ascontiguousarray(inputs.recent, np.int64))


class Encoder(nn.Module):
    """A rival's network.

    ``normalise``: vectors are put on the unit sphere and scores multiplied by the temperature.
    ``of_one_moment``: a batch is of consecutive clicks. Where item vectors read counters and ages it has to be: of
    negatives from other moments, these would give the moment away, and the model would learn to tell the time.
    """

    normalise = True
    of_one_moment = True

    def queries(self, inputs: Inputs) -> Tensor:
        """N inputs → [N, K, d] query vectors."""
        raise NotImplementedError

    def items(self, inputs: Inputs) -> Tensor:
        """N inputs → [N, d] item vectors."""
        raise NotImplementedError

    def attend(self, interests: Tensor, items: Tensor) -> Tensor:
        """In training, the one vector [B, d] of each query's [B, K, d] that answers for its positive [B, d]."""
        return interests[:, 0]


class NeuralRival:
    """Fits an encoder and scores test clicks with it: an item's score is its best over the query's vectors."""

    def __init__(self, build: Callable[[TrainingSet, Prepared, RivalConfig], Encoder], config: RivalConfig):
        self.build, self.config = build, config

    def fit(self, data: TrainingSet, cut_ms: int) -> None:
        config = self.config
        torch.manual_seed(config.seed)
        self.data = data
        prepared = Prepared.of(data, config)
        self.encoder = self.build(data, prepared, config)
        self.query = prepared.query
        optimiser = Optimiser(self.encoder, config.learning_rate)
        self.seen = ClickedBefore(data.clicks.queries, data.clicks.items, data.excludes_seen)
        self.clicked = ClicksByItem(data.clicks.items)
        moment, size = self.encoder.of_one_moment, len(data.clicks)
        around = config.logq_window // 2 if moment else size
        self.encoder.train()
        for _ in range(config.epochs):
            order = np.arange(size) if moment else torch.randperm(size).numpy()
            for number in torch.randperm(len(prepared.batches)).tolist():
                batch = prepared.batches[number]
                self._step(optimiser, order[batch.rows], batch if moment else None, around)
        self.encoder.eval()

    def _step(self, optimiser: Optimiser, numbers: Array, batch: Batch | None, around: int) -> None:
        """One step on some clicks; without a batch, items are known by their ids alone."""
        data, config = self.data, self.config
        positives, negatives = data.clicks.items[numbers], data.negatives[numbers]
        every = np.concatenate([positives, negatives.ravel()])
        candidates, counts = np.unique(every[every >= 0], return_counts=True)
        inputs = batch.item if batch else Inputs(candidates + 1, np.empty((0, 0)), np.empty((0, 0)))
        items = self._scaled(self.encoder.items(inputs))
        query = self.query.take(numbers)
        query.rows[torch.rand(len(numbers)).numpy() < config.query_id_dropout] = 0
        interests = self._scaled(self.encoder.queries(query))
        positive = torch.from_numpy(np.searchsorted(candidates, positives))
        first, last = int(numbers.min()) - around, int(numbers.max()) + 1 + around
        uniform = negatives.shape[1] / len(data.items)
        around = self.clicked.around(first, last)
        bias = np.log(counts) - log_expected(self.clicked.of(candidates, first, last), around, uniform)
        own = -log_expected(self.clicked.of(positives, first, last), around, uniform, own=1)
        rows, columns = self.seen.of(numbers, data.clicks.queries[numbers], positives, candidates)
        loss = losses.softmax(
            self._scaled(self.encoder.attend(interests, items[positive])),
            items,
            positive,
            (torch.from_numpy(rows), torch.from_numpy(columns)),
            config.temperature if self.encoder.normalise else 1.0,
            (torch.from_numpy(bias.astype(np.float32)), torch.from_numpy(own.astype(np.float32))),
        )
        optimiser.step(loss)

    def _scaled(self, vectors: Tensor) -> Tensor:
        return nn.functional.normalize(vectors, dim=-1) if self.encoder.normalise else vectors

    def scorer(self, test: TestClicks, live: bool) -> "NeuralScorer":
        return NeuralScorer(self, test, live)

    @torch.inference_mode()
    def queries(self, inputs: Inputs) -> Array:
        """[N, K, d]."""
        return self._scaled(self.encoder.queries(inputs)).numpy()

    @torch.inference_mode()
    def item(self, inputs: Inputs, augmented: Array) -> Array:
        """[N, d]."""
        return self._scaled(self.encoder.items(inputs)).numpy()


class NeuralScorer(VectorScorer):
    """Interests and items; live, items are as of each block's start and queries as of each click's moment."""

    def __init__(self, model: NeuralRival, test: TestClicks, live: bool):
        self.model, self.test, self.live = model, test, live
        self.replay = Replay(
            test.queries.copy(), test.items.copy(), test.query_spec, test.item_spec, model.config.replayed
        )
        start = int(test.clicks.times[0]) if live and len(test) else test.cut_ms
        self.table = ItemTable(self.replay, model.item, start)
        self.touched = np.empty(0, np.int64)

    def begin(self, block: slice) -> None:
        clicks = self.test.clicks[block]
        self.block = block
        if self.live:
            self.items = self.table.at(int(clicks.times[0]), self.touched)
            inputs, _ = self.replay.observe(clicks, NO_TOWERS).before()
        else:
            self.items = self.replay.items.vectors
            moment = np.full(len(clicks), self.test.cut_ms, np.int64)
            inputs = query_inputs(
                self.replay.queries, self.test.query_spec, self.replay.config, clicks.queries, moment,
                self.replay.items.trained,
            )  # fmt: skip
        self.queries = self.model.queries(inputs)

    def vectors(self, rows: slice) -> Vectors:
        return Vectors(self.queries[rows.start - self.block.start : rows.stop - self.block.start], self.items)

    def end(self, block: slice) -> None:
        if self.live:
            clicks = self.test.clicks[block]
            self.replay.count(clicks)
            self.touched = np.unique(clicks.items)
