"""What the neural rivals share: one or more query vectors against an item vector, sampled softmax, live item vectors.

A rival is a module with a few lines of its own: how it makes query vectors of profile, activity and history, and how it
makes item vectors. Training examples, loss, batch size and optimiser are those of DAT.
"""

from collections.abc import Callable

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from training import losses
from training.clicked import Clicked
from training.evaluation import Vectors, VectorScorer
from training.examples import TrainingSet
from training.features import Inputs
from training.frequency import Frequency
from training.history import before_each, in_replay, tower_rows
from training.live import LiveItems
from training.optimiser import Optimiser
from training.replay import Activity, Replay

Array = np.ndarray


class RivalConfig(BaseModel):
    """What every neural rival is trained with."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    dim: int = 32
    history: int = 20
    """L, how many of a query's latest items a model reads."""
    interests: int = 4
    """K, the query vectors of MIND and MVKE."""
    temperature: float = 15.0
    batch_size: int = 256
    epochs: int = 5
    learning_rate: float = 1e-3
    query_id_dropout: float = 0.1
    """Share of examples whose query id is replaced by the unknown one, which is how that one is trained."""
    frequency_window: int = 4096
    """As DAT's (:class:`training.config.DATConfig`), where batches are of one moment."""
    seed: int = 0


class Encoder(nn.Module):
    """A rival's network.

    ``normalise``: vectors are put on the unit sphere and scores multiplied by the temperature.
    ``of_one_moment``: a batch is of consecutive clicks. Where item vectors read counters and ages it has to be: of
    negatives from other moments, these would give the moment away, and the model would learn to tell the time.
    """

    normalise = True
    of_one_moment = True

    def queries(self, inputs: Inputs, history: Tensor) -> Tensor:
        """N inputs and [N, L] rows of recent items, newest first (0 = none) → [N, K, d] query vectors."""
        raise NotImplementedError

    def items(self, inputs: Inputs) -> Tensor:
        """N inputs → [N, d] item vectors."""
        raise NotImplementedError

    def attend(self, interests: Tensor, items: Tensor) -> Tensor:
        """In training, the one vector [B, d] of each query's [B, K, d] that answers for its positive [B, d]."""
        return interests[:, 0]


class NeuralRival:
    """Fits an encoder and scores replays with it: an item's score is its best over the query's vectors."""

    def __init__(self, build: Callable[[TrainingSet, RivalConfig], Encoder], config: RivalConfig):
        self.build, self.config = build, config

    def fit(self, window: TrainingSet) -> None:
        torch.manual_seed(self.config.seed)
        self.window = window
        self.encoder = self.build(window, self.config)
        examples, config = window.examples, self.config
        optimiser = Optimiser(self.encoder, config.learning_rate)
        self.clicked = Clicked(examples.query_rows, examples.item_rows[:, 0])
        history = before_each(examples.query_rows, examples.item_rows[:, 0], config.history, examples.known) + 1
        frequency = Frequency(examples.item_rows[:, 0])
        moment, batches = self.encoder.of_one_moment, examples.batches(config.batch_size)
        around = config.frequency_window // 2 if moment else len(examples)
        self.encoder.train()
        for _ in range(config.epochs):
            order = np.arange(len(examples)) if moment else torch.randperm(len(examples)).numpy()
            for number in torch.randperm(len(batches)).tolist():
                rows = batches[number]
                first, last = rows.start - around, rows.stop + around
                chosen = order[rows]
                expected = frequency.expected(examples.item_rows[chosen], first, last, len(window.item))
                self._step(optimiser, chosen, history, expected.astype(np.float32))
        self.encoder.eval()

    def _step(self, optimiser: Optimiser, chosen: Array, history: Array, expected: Array) -> None:
        examples, width = self.window.examples, self.window.examples.candidates
        item_rows = examples.item_rows[chosen]
        flat = (chosen[:, None] * width + np.arange(width)).ravel()
        items = self._scaled(self.encoder.items(examples.item.take(flat))).view(len(chosen), width, -1)
        query = examples.query.take(chosen)
        query.rows[torch.rand(len(chosen)).numpy() < self.config.query_id_dropout] = 0
        interests = self._scaled(self.encoder.queries(query, torch.from_numpy(history[chosen])))
        seen = self.clicked.seen(chosen, examples.query_rows[chosen], item_rows)
        loss = losses.sampled_softmax(
            self._scaled(self.encoder.attend(interests, items[:, 0])),
            items,
            torch.from_numpy(examples.asked[chosen]),
            torch.from_numpy(seen),
            torch.from_numpy(expected),
            self.config.temperature if self.encoder.normalise else 1.0,
        )
        optimiser.step(loss)

    def _scaled(self, vectors: Tensor) -> Tensor:
        return nn.functional.normalize(vectors, dim=-1) if self.encoder.normalise else vectors

    def scorer(self, replay: Replay, live: bool) -> "_Scorer":
        return _Scorer(self, replay, live)

    @torch.inference_mode()
    def query_vectors(self, inputs: Inputs, history: Array) -> Array:
        """[N, K, d] of N queries with [N, L] rows of recent items (−1 = none)."""
        known = torch.from_numpy(tower_rows(history, len(self.window.item)))
        return self._scaled(self.encoder.queries(inputs, known)).numpy()

    @torch.inference_mode()
    def item_vectors(self, inputs: Inputs) -> Array:
        """[N, d] of N items."""
        return self._scaled(self.encoder.items(inputs)).numpy()


class _Scorer(VectorScorer):
    def __init__(self, fitted: NeuralRival, replay: Replay, live: bool):
        self.fitted, self.replay, self.live = fitted, replay, live
        self.activity = Activity.of_queries(replay)
        self.items = LiveItems(replay, fitted.window.item_spec, lambda rows, inputs: fitted.item_vectors(inputs))

    def vectors(self, rows: slice) -> Vectors:
        """Interests and items; live, items and histories are those just before the block and the click."""
        replay = self.replay
        vectors = self.items.at(rows.start) if self.live or not self.items.vectors.size else self.items.vectors
        positions = np.arange(rows.start, rows.stop) if self.live else np.zeros(rows.stop - rows.start, np.int64)
        queries = replay.queries[rows]
        as_of = replay.times[rows] if self.live else np.full(len(positions), replay.times[0])
        inputs = self.activity.inputs(self.fitted.window.query_spec, queries, positions, as_of, replay.known_queries)
        history = in_replay(replay, rows, self.fitted.config.history, self.live)
        interests = self.fitted.query_vectors(inputs, history)
        return Vectors(interests, vectors if self.live else vectors[: replay.known_items])
