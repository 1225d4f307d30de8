"""DAT over a replay: ``StaticDAT`` as the night left it, ``LiveDAT`` folding each click in, as the stream does."""

import numpy as np

from training.augmented import AugmentedTable
from training.dat import represent
from training.replay import Activity, Replay
from training.trainer import Fitted

Array = np.ndarray
DRIFT = 0.01  # an item is recomputed when one of its inputs has moved by more than this since its last vector


class StaticDAT:
    """The vectors as at the cut. A new query has its profile and the unknown id; a new item is no candidate."""

    live = False

    def __init__(self, fitted: Fitted, replay: Replay, cut_ms: int):
        new = np.arange(replay.known_queries, len(replay.query))
        activity = Activity(replay.query, replay.queries, replay.times, replay.half_lives_ms[0])
        at_cut = activity.inputs(
            fitted.query_spec, new, np.zeros_like(new), np.full(len(new), cut_ms), replay.known_queries
        )
        augmented = np.zeros((len(new), *fitted.queries.a.shape[1:]), np.float32)
        fresh = represent(fitted.model.query_tower, at_cut, augmented)
        self.queries = np.concatenate([fitted.queries.vectors, fresh])
        self.items = fitted.items.vectors
        self.replay = replay

    def score(self, rows: slice) -> Array:
        """Scores [B, known items] for the queries of these clicks."""
        return self.queries[self.replay.queries[rows]] @ self.items.T


class LiveDAT:
    """Each click is scored with what was known just before it, then folded: the stream's arithmetic.

    A query's vector is exact to the click. Items are recomputed between blocks: those that were clicked, and those
    whose activity has drifted.
    """

    live = True

    def __init__(self, fitted: Fitted, replay: Replay):
        self.fitted, self.replay = fitted, replay
        dim, memories = fitted.config.tower.output_dim, fitted.config.memories[: fitted.config.memory_count]
        self.a_u = AugmentedTable(len(replay.query), memories, dim)
        self.a_v = AugmentedTable(len(replay.item), memories, dim)
        for table, side in ((self.a_u, fitted.queries), (self.a_v, fitted.items)):
            table.a[1 : len(side.ids) + 1] = side.a
            table.folded[1 : len(side.ids) + 1] = side.folded
        self.query = Activity(replay.query, replay.queries, replay.times, replay.half_lives_ms[0])
        self.item = Activity(replay.item, replay.items, replay.times, replay.half_lives_ms[1])
        self.items = np.zeros((len(replay.item), dim), np.float32)
        self.read = np.full((len(replay.item), fitted.item_spec.dense_width), np.inf, np.float32)  # by self.items
        self.touched = np.zeros(len(replay.item), bool)

    def score(self, rows: slice) -> Array:
        """Scores [B, all items] for these clicks; row r has seen every click before r. Then folds them."""
        replay, fitted = self.replay, self.fitted
        self._refresh_items(rows.start)
        queries, items = replay.queries[rows], replay.items[rows]
        p_v = self.items[items]
        before = self.a_u.fold(queries + 1, p_v)
        positions = np.arange(rows.start, rows.stop)
        inputs = self.query.inputs(fitted.query_spec, queries, positions, replay.times[rows], replay.known_queries)
        p_u = represent(fitted.model.query_tower, inputs, before)
        scores = p_u @ self.items.T
        self.a_v.fold(items + 1, p_u)
        self.touched[items] = True
        return scores

    def _refresh_items(self, position: int) -> None:
        """Item vectors as of just before the click at ``position``: those whose inputs have moved."""
        replay, fitted = self.replay, self.fitted
        everything = np.arange(len(replay.item))
        now = np.full(len(everything), replay.times[position])
        inputs = self.item.inputs(
            fitted.item_spec, everything, np.full(len(everything), position), now, replay.known_items
        )
        with np.errstate(invalid="ignore"):
            moved = ~(np.abs(inputs.dense - self.read) <= DRIFT).all(axis=1)
        stale = np.flatnonzero(moved | self.touched)
        if len(stale):
            self.items[stale] = represent(fitted.model.item_tower, inputs.take(stale), self.a_v.read(stale + 1))
            self.read[stale] = inputs.dense[stale]
        self.touched[:] = False
