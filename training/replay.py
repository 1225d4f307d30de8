"""Clicks after the cut, to be predicted one by one: over the ids that training knew, and those that appear later."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa

from feature_repo.card import DatasetCard, Side
from training import features
from training.activity import decay
from training.bundle import SideTable
from training.examples import State, category_codes, lookup
from training.features import Inputs, InputSpec, Profile, share_columns
from training.window import Past, number, profile_columns

Array = np.ndarray


@dataclass(frozen=True)
class Replay:
    """N clicks in order of time. Ids that training did not know are numbered after those it knew, as they appear.

    queries, items: [N] rows of the states · times: [N] ms · query, item: the states at the cut, new ids with nothing
    but their profile · known_queries, known_items: how many ids training knew · existing: [N] items known or clicked
    before each click: rows below it make up the corpus of that moment · half_lives_ms: of all columns of both sides'
    counters · added: what each click adds to its query's (None: one to each).
    """

    queries: Array
    items: Array
    times: Array
    query: State
    item: State
    known_queries: int
    known_items: int
    existing: Array
    half_lives_ms: tuple[tuple[int, ...], tuple[int, ...]]
    added: Array | None = None

    def __len__(self) -> int:
        return len(self.queries)

    @cached_property
    def by_query(self) -> tuple[Array, Array, Array]:
        """Clicks by query, then time [N]; each click's place therein [N]; each query's first place."""
        order = np.argsort(self.queries, kind="stable")
        place = np.empty(len(order), np.int64)
        place[order] = np.arange(len(order))
        return order, place, np.searchsorted(self.queries[order], np.arange(len(self.query)))


def make_replay(
    clicks: pa.Table,
    profiles: Mapping[str, pa.Table],
    card: DatasetCard,
    query: State | SideTable,
    item: State | SideTable,
    query_spec: InputSpec,
    item_spec: InputSpec,
) -> Replay:
    """Number the clicks' ids behind those of the states at the cut.

    Args:
        clicks: query_id, item_id, event_time (ms), in order of time.
        profiles: ``query`` and ``item`` catalogues, for the ids that are new.
    """
    queries, query_after = _extend(clicks["query_id"], query, profiles["query"], card.query, query_spec)
    items, item_after = _extend(clicks["item_id"], item, profiles["item"], card.item, item_spec)
    shares = query_spec.shares
    categories = share_columns(shares, item_spec, item_after.profile)[items] if shares else None
    highest = np.maximum.accumulate(np.r_[len(item.ids) - 1, items])[:-1]
    return Replay(
        queries,
        items,
        clicks["event_time"].to_numpy().astype(np.int64),
        query_after,
        item_after,
        len(query.ids),
        len(item.ids),
        highest + 1,
        (query_spec.decays_ms, item_spec.decays_ms),
        query_spec.added(categories),
    )


def _extend(
    ids: pa.ChunkedArray, known: State | SideTable, catalogue: pa.Table, side: Side, spec: InputSpec
) -> tuple[Array, State]:
    """Rows of ``ids``, and the state with the new ones behind the known ones."""
    distinct, numbers = number(ids)
    rows = lookup(pa.array(distinct, pa.string()), known.ids)
    fresh = np.flatnonzero(rows < 0)
    rows[fresh] = len(known.ids) + np.arange(len(fresh))
    new = [distinct[index] for index in fresh]
    profile = features.encode(spec, profile_columns(new, catalogue, side), len(new))
    both = Profile(
        np.concatenate([known.profile.codes, profile.codes]),
        np.concatenate([known.profile.numbers, profile.numbers]),
        np.concatenate([known.profile.times, profile.times]),
    )
    state = State(
        [*known.ids, *new],
        both,
        _padded(known.clicks, len(new), 0),
        _padded(known.counters, len(new), 0),
        _padded(known.last_click, len(new), 0),
        _padded(known.history, len(new), -1),
        category_codes(side, spec, both),
    )
    return rows[numbers], state


def _padded(values: Array, more: int, fill: int) -> Array:
    return np.concatenate([values, np.full((more, *values.shape[1:]), fill, values.dtype)])


class Activity:
    """A side's activity at any moment of a replay: the state at the cut, plus the clicks since."""

    def __init__(
        self, state: State, keys: Array, times: Array, half_lives_ms: tuple[int, ...], added: Array | None = None
    ):
        self.state, self.half_lives_ms = state, half_lives_ms
        self.past = Past(keys, times, half_lives_ms, len(state), added)

    @classmethod
    def of_queries(cls, replay: Replay) -> "Activity":
        return cls(replay.query, replay.queries, replay.times, replay.half_lives_ms[0], replay.added)

    def before(self, keys: Array, positions: Array) -> tuple[Array, Array, Array]:
        """Clicks [Q], counters [Q, H] and last_click [Q] of ``keys`` just before the clicks at ``positions`` [Q]."""
        clicks, counters, last = self.past.before(keys, positions)
        base_last = self.state.last_click[keys]
        last = np.where(clicks > 0, last, base_last)
        counters = counters + decay(self.state.counters[keys], last - base_last, self.half_lives_ms)
        return clicks + self.state.clicks[keys], counters, last

    def inputs(self, spec: InputSpec, keys: Array, positions: Array, as_of: Array, known: int) -> Inputs:
        """What a tower reads of ``keys`` at these moments; ids from ``known`` on share the unknown id's row."""
        clicks, counters, last = self.before(keys, positions)
        profile = self.state.profile.take(keys)
        rows = np.where(keys < known, keys + 1, 0)
        return Inputs(rows, profile.codes, features.dense(spec, profile, counters, clicks, last, as_of))


def seen_pairs(replay: Replay, rows: slice) -> tuple[Array, Array]:
    """What the queries of these clicks had clicked before each: pairs (row within the slice, item)."""
    queries = replay.queries[rows]
    rings = replay.query.history[queries]
    at, slot = np.nonzero(rings >= 0)
    # Clicks of the replay itself: for each row the earlier ones of the same query, a run in the order by query.
    order, place, starts = replay.by_query
    counts = place[rows] - starts[queries]
    row = np.repeat(np.arange(len(queries)), counts)
    within = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
    later = replay.items[order[starts[queries][row] + within]]
    return np.concatenate([at, row]), np.concatenate([rings[at, slot].astype(np.int64), later])
