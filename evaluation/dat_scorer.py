"""DAT over test clicks: ``StaticDAT`` as the night left it, ``LiveDAT`` folding each click in, as the stream does."""

import numpy as np

from evaluation.ranks import Vectors, VectorScorer
from evaluation.test_clicks import TestClicks
from model.folds import query_inputs
from model.replay import ItemTable, Replay
from model.state import EntityState
from training.trained_model import TrainedModel

Array = np.ndarray


class StaticDAT(VectorScorer):
    """The vectors as at the cut. A new query has its profile and the unknown id; a new item is no candidate."""

    live = False

    def __init__(self, model: TrainedModel, test: TestClicks):
        new = np.arange(test.queries.trained, len(test.queries))
        moment = np.full(len(new), test.cut_ms, np.int64)
        inputs = query_inputs(test.queries, model.query_spec, model.config, new, moment, len(model.items))
        nothing = np.zeros((len(new), model.queries.a.shape[1]), np.float32)
        self.queries = np.concatenate([model.queries.vectors, model.towers.query(inputs, nothing)])
        self.items = _padded(model.items.vectors, len(test.items))
        self.test = test

    def vectors(self, rows: slice) -> Vectors:
        return Vectors(self.queries[self.test.clicks.queries[rows]][:, None], self.items)


class LiveDAT(VectorScorer):
    """Each click is scored with what was known before its moment, then folded: the stream's arithmetic.

    A query's vector is exact to the click. Items are recomputed between blocks: those that were clicked, and those
    whose activity has drifted.
    """

    live = True

    def __init__(self, model: TrainedModel, test: TestClicks):
        self.model, self.test = model, test
        queries, items = _with_vectors(test.queries, model.queries), _with_vectors(test.items, model.items)
        self.replay = Replay(queries, items, model.query_spec, model.item_spec, model.config)
        start = int(test.clicks.times[0]) if len(test) else test.cut_ms
        self.table = ItemTable(self.replay, model.towers.item, start)
        self.touched = np.empty(0, np.int64)

    def begin(self, block: slice) -> None:
        clicks = self.test.clicks[block]
        self.items = self.table.at(int(clicks.times[0]), self.touched)
        towers = self.model.towers
        readings = self.items[clicks.items] if towers.reads_vectors else None
        self.block, self.observed = block, self.replay.observe(clicks, towers, readings)
        inputs, a_u = self.observed.before()
        self.queries = self.model.towers.query(inputs, a_u)

    def vectors(self, rows: slice) -> Vectors:
        here = slice(rows.start - self.block.start, rows.stop - self.block.start)
        return Vectors(self.queries[here][:, None], self.items)

    def end(self, block: slice) -> None:
        self.touched = self.replay.advance(self.test.clicks[block], self.observed, self.model.towers)


def _with_vectors(extended: EntityState, trained: EntityState) -> EntityState:
    """The test's state, with a model's augmented vectors of the ids that it knows."""
    state = extended.copy()
    for name in ("a", "update_count", "vectors", "as_of"):
        state.columns[name] = _padded(getattr(trained, name), len(state))
    return state


def _padded(values: Array, size: int) -> Array:
    more = np.zeros((size - len(values), *values.shape[1:]), values.dtype)
    return np.concatenate([values, more])
