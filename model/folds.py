"""One batch of clicks through the state of queries, or of items: the step that training, evaluation and stream share.

A click of query u on item v at time t is worth, in this order: p_u, the query tower's output from what was known just
before it; a_u ← a_u + α (p_v − a_u); and, for the item, a_v ← a_v + α (p_u − a_v). Nothing here writes to a state: a
batch returns the new values of the rows that it touches.

That is the moving average of the preset ``amm``; a learned memory (:mod:`model.memory`) takes the item's embedding in
the same place.
"""

from dataclasses import replace

import numpy as np

from model import recent_items
from model.counters import count
from model.features import Inputs, InputSpec, dense
from model.fold import fold
from model.memory import Memory, gap_inputs
from model.scan import Groups
from model.settings.model import DATConfig
from model.state import EntityState, ItemUpdate, QueryUpdate
from model.towers import TowerFunction

Array = np.ndarray


class QueryFold:
    """N clicks on G queries: what was known before each click, and the queries' new values.

    Args:
        state: The queries. rows: [G] the rows of those that clicked. key: [N] the place in ``rows`` of each click's.
        times: [N] ms. item_rows: [N] the clicked items, as rings name them. readings: [N, X] what ``memory`` reads of
            them. weights: [N] what each click adds to the counters; None: 1.
        known_items: How many items the tower's embedding of recent items knows.
    """

    def __init__(
        self, state: EntityState, rows: Array, key: Array, times: Array, item_rows: Array, readings: Array,
        memory: Memory, spec: InputSpec, config: DATConfig, known_items: int, weights: Array | None = None,
    ):  # fmt: skip
        self.state, self.rows, self.times, self.item_rows = state, rows, times, item_rows
        self.spec, self.config, self.known_items = spec, config, known_items
        self.groups = Groups.of(key, len(rows))
        self.clicks = state.clicks[rows]
        self.rings = state.recent_items[rows]
        self.counted = count(
            self.groups, state.counters[rows], state.last_click[rows], times, spec.half_lives_ms, weights
        )
        gap = gap_of(config, self.counted.last_click.before(), times)
        self.folded = memory.fold(self.groups, state.a[rows], state.update_count[rows], readings, gap)

    def before(self, visible: Array | None = None) -> tuple[Inputs, Array]:
        """What the query tower reads just before each click: inputs [N] and a_u [N, A].

        Args:
            visible: [N] how many of the query's earlier clicks of the batch are known; None: all of them.
        """
        groups, config = self.groups, self.config
        visible = groups.rank if visible is None else visible
        owner = self.rows[groups.key]
        profile = self.state.profile(owner)
        counters, last_click = self.counted.before(visible)
        fast = dense(self.spec, profile, counters, self.clicks[groups.key] + visible, last_click, self.times)
        recent = None
        if config.history:
            history = recent_items.before(groups, visible, self.item_rows, self.rings, self.clicks, config.history)
            recent = recent_items.embedding_rows(history, self.known_items)
        gap = gap_of(config, last_click, self.times)
        inputs = Inputs(self.state.embedding_rows(owner), profile.codes, fast, recent, gap)
        return inputs, self.folded.before(visible)

    def after(self) -> QueryUpdate:
        """The queries after all clicks."""
        counters, last_click = self.counted.after()
        counts = self.groups.counts
        return QueryUpdate(
            rows=self.rows,
            a=self.folded.after(),
            update_count=self.state.update_count[self.rows] + counts,
            clicks=self.clicks + counts,
            counters=counters,
            last_click=last_click,
            recent_items=recent_items.append(self.groups, self.item_rows, self.rings, self.clicks),
        )


def fold_items(
    state: EntityState, rows: Array, key: Array, times: Array, vectors: Array, spec: InputSpec, config: DATConfig,
    weights: Array | None = None,
) -> ItemUpdate:  # fmt: skip
    """The new values of G items after N clicks.

    Args:
        state: The items. rows: [G] the rows of those that were clicked. key: [N] the place in ``rows`` of each click's.
        times: [N] ms. vectors: [N, D] the query tower's output just before each click.
        weights: [N] what each click adds to the counters; None: 1.
    """
    groups = Groups.of(key, len(rows))
    signals = vectors[:, : config.signal_dim]
    folded = fold(groups, state.a[rows], state.update_count[rows], signals, config.item_alphas)
    counters, last_click = count(
        groups, state.counters[rows], state.last_click[rows], times, spec.half_lives_ms, weights
    ).after()
    return ItemUpdate(
        rows=rows,
        a=folded.after(),
        update_count=state.update_count[rows] + groups.counts,
        clicks=state.clicks[rows] + groups.counts,
        counters=counters,
        last_click=last_click,
    )


def gap_of(config: DATConfig, last_click: Array, times: Array) -> Array | None:
    """The time since the click before, as a tower reads it: [N, 5]; None where none does."""
    if config.preset != "memories":
        return None
    gap = gap_inputs(last_click, times)
    return gap if config.memory.gaps else np.zeros_like(gap)


def item_vectors(tower: TowerFunction, state: EntityState, spec: InputSpec, rows: Array, as_of: Array) -> Array:
    """p_v [N, d] of some rows at the moments [N] ms."""
    return tower(state.inputs(spec, rows, as_of), state.a[rows])


def query_inputs(
    state: EntityState, spec: InputSpec, config: DATConfig, rows: Array, as_of: Array, known_items: int
) -> Inputs:
    """What the query tower reads of some rows at the moments [N] ms."""
    inputs = state.inputs(spec, rows, as_of)
    gap = gap_of(config, state.last_click[rows], as_of)
    if not config.history:
        return replace(inputs, gap=gap)
    history = recent_items.newest(state.recent_items[rows], state.clicks[rows], config.history)
    return replace(inputs, recent=recent_items.embedding_rows(history, known_items), gap=gap)


def drifted(state: EntityState, spec: InputSpec, rows: Array, now_ms: int, tolerance: float) -> Array:
    """Those of some item rows of which a dense input has moved by more than ``tolerance`` since their vector."""
    then = state.inputs(spec, rows, state.as_of[rows]).dense
    now = state.inputs(spec, rows, np.full(len(rows), now_ms, np.int64)).dense
    return rows[(np.abs(now - then) > tolerance).any(axis=1)]
