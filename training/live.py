"""DAT over a replay: ``StaticDAT`` as the night left it, ``LiveDAT`` folding each click in, as the stream does."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from training.augmented import AugmentedTable
from training.dat import represent
from training.evaluation import Vectors, VectorScorer
from training.features import Inputs, InputSpec
from training.fitted import Fitted
from training.history import in_replay, tower_rows
from training.replay import Activity, Replay

Array = np.ndarray
DRIFT = 0.01  # an item is recomputed when one of its inputs has moved by more than this since its last vector


class LiveItems:
    """The vectors of all of a replay's items, recomputed as their inputs move.

    Args:
        represent: (rows [n] of the item state, their inputs) → vectors [n, d].
    """

    def __init__(self, replay: Replay, spec: InputSpec, represent: Callable[[Array, Inputs], Array]):
        self.replay, self.spec, self.represent = replay, spec, represent
        self.activity = Activity(replay.item, replay.items, replay.times, replay.half_lives_ms[1])
        self.touched = np.ones(len(replay.item), bool)
        self.vectors = np.empty((0, 0), np.float32)
        self.read = np.zeros((0, 0), np.float32)

    def at(self, position: int) -> Array:
        """Vectors [I, d] as of just before the click at ``position``."""
        replay = self.replay
        everything = np.arange(len(replay.item))
        now = np.full(len(everything), replay.times[position])
        positions = np.full(len(everything), position)
        inputs = self.activity.inputs(self.spec, everything, positions, now, replay.known_items)
        if self.vectors.size:
            self.touched |= (np.abs(inputs.dense - self.read) > DRIFT).any(axis=1)
            stale = np.flatnonzero(self.touched)
            if len(stale):
                self.vectors[stale] = self.represent(stale, inputs.take(stale))
                self.read[stale] = inputs.dense[stale]
        else:
            self.vectors, self.read = self.represent(everything, inputs).copy(), inputs.dense
        self.touched[:] = False
        return self.vectors


class StaticDAT(VectorScorer):
    """The vectors as at the cut. A new query has its profile and the unknown id; a new item is no candidate."""

    live = False

    def __init__(self, fitted: Fitted, replay: Replay, cut_ms: int):
        new = np.arange(replay.known_queries, len(replay.query))
        activity = Activity.of_queries(replay)
        at_cut = activity.inputs(
            fitted.query_spec, new, np.zeros_like(new), np.full(len(new), cut_ms), replay.known_queries
        )
        if fitted.config.latest:
            at_cut = replace(at_cut, latest=np.zeros((len(new), fitted.config.latest), np.int64))
        augmented = np.zeros((len(new), *fitted.queries.a.shape[1:]), np.float32)
        fresh = represent(fitted.model.query_tower, at_cut, augmented)
        self.queries = np.concatenate([fitted.queries.vectors, fresh])
        self.items = fitted.items.vectors
        self.replay = replay

    def vectors(self, rows: slice) -> Vectors:
        """Of the queries of these clicks, and of all known items."""
        return Vectors(self.queries[self.replay.queries[rows]][:, None], self.items)


class LiveDAT(VectorScorer):
    """Each click is scored with what was known just before it, then folded: the stream's arithmetic.

    A query's vector is exact to the click. Items are recomputed between blocks: those that were clicked, and those
    whose activity has drifted.
    """

    live = True

    def __init__(self, fitted: Fitted, replay: Replay):
        self.fitted, self.replay = fitted, replay
        config, dim = fitted.config, fitted.config.tower.output_dim
        self.a_u = AugmentedTable(len(replay.query), config.memories_of("query"), dim)
        self.a_v = AugmentedTable(len(replay.item), config.memories_of("item"), dim)
        for table, side in ((self.a_u, fitted.queries), (self.a_v, fitted.items)):
            table.a[1 : len(side.ids) + 1] = side.a
            table.folded[1 : len(side.ids) + 1] = side.folded
        self.query = Activity.of_queries(replay)
        self.items = LiveItems(replay, fitted.item_spec, self._represent_items)

    def vectors(self, rows: slice) -> Vectors:
        """Of the queries just before each of these clicks, and of all items before the first. Then folds them."""
        replay, fitted = self.replay, self.fitted
        vectors = self.items.at(rows.start)
        queries, items = replay.queries[rows], replay.items[rows]
        p_v = vectors[items]
        before = self.a_u.fold(queries + 1, p_v)
        positions = np.arange(rows.start, rows.stop)
        inputs = self.query.inputs(fitted.query_spec, queries, positions, replay.times[rows], replay.known_queries)
        if fitted.config.latest:
            history = in_replay(replay, rows, fitted.config.latest, live=True)
            inputs = replace(inputs, latest=tower_rows(history, replay.known_items))
        p_u = represent(fitted.model.query_tower, inputs, before)
        self.a_v.fold(items + 1, p_u)
        self.items.touched[items] = True
        return Vectors(p_u[:, None], vectors)

    def _represent_items(self, rows: Array, inputs: Inputs) -> Array:
        return represent(self.fitted.model.item_tower, inputs, self.a_v.read(rows + 1))
