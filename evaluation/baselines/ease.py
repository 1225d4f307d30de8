"""EASE^R (Steck, 2019) with recency: a closed form of item weights, and a history that counts for less as it ages."""

import numpy as np

from evaluation.test_clicks import TestClicks
from model import recent_items
from model.settings.model import ClosedFormConfig
from training.closed_form import item_weights
from training.training_set import TrainingSet

Array = np.ndarray


class EASE:
    """``score(u, j) = Σ_k decay^k · B(i_k, j)`` over u's items i_0 (latest), i_1, …, with B as at the cut.

    Args:
        l2: The ridge penalty. decay: what a click is worth after each further one. latest: how many count.
    """

    def __init__(self, l2: float = 500.0, decay: float = 0.9, latest: int = 200):
        self.config, self.latest = ClosedFormConfig(l2=l2, decay=decay), latest

    def fit(self, data: TrainingSet, cut_ms: int) -> None:
        self.chosen, self.weights = item_weights(data, self.config)

    def scorer(self, test: TestClicks, live: bool) -> "EASEScorer":
        return EASEScorer(self, test, live)


class EASEScorer:
    def __init__(self, model: EASE, test: TestClicks, live: bool):
        self.model, self.test, self.live = model, test, live
        self.place = np.full(len(test.items), -1)
        self.place[model.chosen] = np.arange(len(model.chosen))

    def begin(self, block: slice) -> None: ...

    def score(self, rows: slice) -> Array:
        """Scores [B, I]; items that were not solved for have none."""
        test, model = self.test, self.model
        rings = test.queries.recent_items
        visible = test.visible if self.live else np.zeros(len(test), np.int64)
        length = min(rings.shape[1], model.latest)
        history = recent_items.before(test.groups, visible, test.clicks.items, rings, test.queries.clicks, length, rows)
        at, slot = np.nonzero(history >= 0)
        column = self.place[history[at, slot]]
        at, slot, column = at[column >= 0], slot[column >= 0], column[column >= 0]
        memory = np.zeros((rows.stop - rows.start, len(model.chosen)), np.float32)
        np.add.at(memory, (at, column), model.config.decay**slot)
        scores = np.full((len(memory), len(test.items)), -1e9, np.float32)
        scores[:, model.chosen] = memory @ model.weights
        return scores

    def end(self, block: slice) -> None: ...
