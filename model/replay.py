"""Clicks in the order of time through the state of both sides: one replay for training, evaluation and the night.

A *moment* is an event time as the log has it. What predicts a click is what was known before its moment: counters,
recent items, a_u and a_v leave out the other clicks of the same moment, whoever made them. The fold itself is one click
after the other, as in the stream. The item side moves between blocks: all items of a block are as of its start, since
candidates of different ages would tell the model which of them was clicked.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from model.features import Inputs, InputSpec
from model.folds import QueryFold, drifted, fold_items
from model.memory import Memory, MovingAverages
from model.settings.model import DATConfig
from model.state import EntityState
from model.towers import TowerFunction

Array = np.ndarray


@dataclass(frozen=True)
class ClickRows:
    """N clicks in the order of the fold: rows of the query and the item state, times [N] ms.

    moments: [N] ascending; equal for clicks that may not know of each other · weights: [N] float32, what each click
    counts as; None: 1.
    """

    queries: Array
    items: Array
    times: Array
    moments: Array
    weights: Array | None = None

    def __len__(self) -> int:
        return len(self.queries)

    def __getitem__(self, rows: slice) -> "ClickRows":
        weights = None if self.weights is None else self.weights[rows]
        return ClickRows(self.queries[rows], self.items[rows], self.times[rows], self.moments[rows], weights)

    def blocks(self, size: int) -> Iterator[slice]:
        """Blocks of at least ``size`` clicks, except the last. No moment is split: its clicks share one block."""
        starts = np.flatnonzero(np.r_[True, self.moments[1:] != self.moments[:-1]]) if len(self) else np.empty(0, int)
        at = 0
        while at < len(self):
            later = np.searchsorted(starts, at + size)
            stop = int(starts[later]) if later < len(starts) else len(self)
            yield slice(at, stop)
            at = stop


class TowerPair(Protocol):
    """Both towers, in NumPy or in torch, and the memory of the queries."""

    @property
    def query(self) -> TowerFunction: ...

    @property
    def item(self) -> TowerFunction: ...

    @property
    def memory(self) -> Memory: ...

    def read(self, inputs: Inputs, augmented: Array) -> Array:
        """What the memory reads of N items: [N, X]."""


class Observed(NamedTuple):
    """A block of N clicks as it is predicted and folded."""

    fold: QueryFold
    visible: Array
    """[N] how many earlier clicks of its query in the block are from before each click's moment."""

    def before(self) -> tuple[Inputs, Array]:
        """What predicts each click: inputs [N] and a_u [N, A] of its query before its moment."""
        return self.fold.before(self.visible)


class Replay:
    """Both sides' states, and the fold of clicks into them.

    Args:
        queries, items: The states before the first click; they are written to.
    """

    def __init__(
        self, queries: EntityState, items: EntityState, query_spec: InputSpec, item_spec: InputSpec, config: DATConfig
    ):  # fmt: skip
        self.queries, self.items, self.config = queries, items, config
        self.query_spec, self.item_spec = query_spec, item_spec

    def item_inputs(self, rows: Array, now_ms: int) -> tuple[Inputs, Array]:
        """What the item tower reads of some rows [N] at a moment: inputs and a_v [N, A]."""
        moment = np.full(len(rows), now_ms, np.int64)
        return self.items.inputs(self.item_spec, rows, moment), self.items.a[rows]

    def observe(self, block: ClickRows, towers: TowerPair, readings: Array | None = None) -> Observed:
        """See what is known before each click of a block; nothing is written.

        Args:
            readings: [N, X] what the memory reads of the clicked items, all as of the block's start; None: computed.
        """
        if readings is None:
            items, place = np.unique(block.items, return_inverse=True)
            readings = towers.read(*self.item_inputs(items, int(block.times[0])))[place]
        rows, key = np.unique(block.queries, return_inverse=True)
        fold = QueryFold(
            self.queries, rows, key, block.times, block.items, readings, towers.memory, self.query_spec, self.config,
            self.items.trained, block.weights,
        )  # fmt: skip
        return Observed(fold, fold.groups.before_moment(block.moments))

    def advance(self, block: ClickRows, observed: Observed, towers: TowerPair) -> Array:
        """Fold the block's clicks into both sides; returns the item rows that were clicked."""
        return self.apply(block, observed, towers.query(*observed.fold.before()))

    def apply(self, block: ClickRows, observed: Observed, signals: Array) -> Array:
        """Fold the block's clicks, whose queries had the vectors ``signals`` [N, D] just before each."""
        rows, key = np.unique(block.items, return_inverse=True)
        update = fold_items(self.items, rows, key, block.times, signals, self.item_spec, self.config, block.weights)
        observed.fold.after().apply(self.queries)
        update.apply(self.items)
        return rows

    def count(self, block: ClickRows) -> None:
        """Fold a block into the activity alone, for a model without augmented vectors."""
        self.advance(block, self.observe(block, NO_TOWERS), NO_TOWERS)


class _NoTowers:
    """The towers of a model whose vectors nothing reads."""

    memory = MovingAverages(())

    def query(self, inputs: Inputs, augmented: Array) -> Array:
        return np.zeros((len(inputs), 0), np.float32)

    item = read = query


NO_TOWERS = _NoTowers()


class ItemTable:
    """The vectors of all items of a replay, recomputed as their inputs move: ``items.vectors``.

    Args:
        tolerance: A vector is recomputed when one of its dense inputs has moved by more than this.
    """

    def __init__(self, replay: Replay, tower: TowerFunction, now_ms: int, tolerance: float = 0.01):
        self.replay, self.tower, self.tolerance = replay, tower, tolerance
        self.rows = np.arange(len(replay.items))
        self.refresh(self.rows, now_ms)

    def refresh(self, rows: Array, now_ms: int) -> None:
        """Recompute some rows as of a moment."""
        if len(rows):
            items = self.replay.items
            vectors = self.tower(*self.replay.item_inputs(rows, now_ms))
            if items.vectors.shape[1] != vectors.shape[1]:
                items.columns["vectors"] = np.zeros((len(items), vectors.shape[1]), np.float32)
            items.put(rows, vectors=vectors, as_of=np.full(len(rows), now_ms, np.int64))

    def at(self, now_ms: int, touched: Array) -> Array:
        """All vectors [I, d] as of a moment, after clicks on the rows ``touched``."""
        items = self.replay.items
        moved = drifted(items, self.replay.item_spec, self.rows, now_ms, self.tolerance)
        self.refresh(np.union1d(touched, moved), now_ms)
        return items.vectors
