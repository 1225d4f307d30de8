"""The item stage: signals → a_v, activity, and p_v, the vector that the index holds.

One signal (v, p_u, t) is worth a_v ← a_v + α (p_u − a_v) and one click counted. p_v is computed once per item and
batch, as of the item's latest click.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from streaming.sequence import group
from streaming.state import Rows, SideState, flat, lists
from streaming.topics import ITEM_STATE
from training.activity import count
from training.amm import fold
from training.bundle import Bundle
from training.dat import represent
from training.features import Inputs, dense

Array = np.ndarray


@dataclass(frozen=True)
class Signals:
    """N signals in the order of their records: item ids, p_u [N, d], times [N] ms, partitions [N]."""

    item_ids: list[str]
    vectors: Array
    times: Array
    partitions: Array

    def __len__(self) -> int:
        return len(self.item_ids)


@dataclass(frozen=True)
class ItemStep:
    """What a batch of signals on G items comes to: the items' new values and their partitions [G]."""

    new: Rows
    partitions: Array


def gather(batches: list[pa.RecordBatch], partitions: list[int], dim: int) -> Signals:
    """Signals of several ``SIGNALS`` records, which came from the given partitions."""
    ids = [key for rows in batches for key in rows["item_id"].to_pylist()]
    vectors = [flat(rows["vector"], dim) for rows in batches]
    times = [rows["event_time"].to_numpy(zero_copy_only=False) for rows in batches]
    sizes = [len(rows) for rows in batches]
    return Signals(
        ids,
        np.concatenate(vectors) if vectors else np.zeros((0, dim), np.float32),
        np.concatenate(times) if times else np.zeros(0, np.int64),
        np.repeat(np.array(partitions, np.int64), sizes),
    )


def step(signals: Signals, state: SideState, bundle: Bundle) -> ItemStep:
    """Fold a batch of signals; changes nothing but which ids have rows."""
    memories = bundle.manifest.config.memories_of("item")
    ids, groups = group(signals.item_ids)
    rows = state.rows(ids)
    state.fill_profiles(rows)
    folded = fold(state["a"][rows], state["folded"][rows], groups, signals.vectors, memories)
    counters, latest = count(
        state["counters"][rows], state["last_click"][rows], groups, signals.times, state.spec.half_lives_ms
    )
    added = np.bincount(groups, minlength=len(ids))
    clicks = state["clicks"][rows] + added
    vectors = vectors_at(state, bundle, rows, folded.after, counters, clicks, latest, latest)
    partitions = np.zeros(len(ids), np.int64)
    partitions[groups] = signals.partitions
    new = Rows(
        rows=rows, a=folded.after, folded=state["folded"][rows] + added, clicks=clicks, counters=counters,
        last_click=latest, extra=vectors, as_of=latest,
    )  # fmt: skip
    return ItemStep(new, partitions)


def vectors_at(
    state: SideState, bundle: Bundle, rows: Array, a: Array, counters: Array, clicks: Array, last: Array, as_of: Array
) -> Array:
    """p_v [G, d] of some rows with the given activity, at the moments ``as_of`` [G] (ms)."""
    profile = state.profile(rows)
    fast = dense(state.spec, profile, counters, clicks, last, as_of)
    return represent(bundle.model.item_tower, Inputs(state.tower_rows(rows), profile.codes, fast), a)


def drifted(rows: Array, state: SideState, now_ms: int, tolerance: float) -> Array:
    """Those of some rows of which an input of the tower has moved by more than ``tolerance`` since their vector."""
    profile = state.profile(rows)
    known = state["counters"][rows], state["clicks"][rows], state["last_click"][rows]
    then = dense(state.spec, profile, *known, state["as_of"][rows])
    now = dense(state.spec, profile, *known, np.full(len(rows), now_ms, np.int64))
    return rows[(np.abs(now - then) > tolerance).any(axis=1)]


def recompute(rows: Array, state: SideState, bundle: Bundle, now_ms: int) -> Rows:
    """The same rows with p_v as of ``now_ms``."""
    a, folded, clicks, counters, last = (
        state[name][rows] for name in ("a", "folded", "clicks", "counters", "last_click")
    )
    moment = np.full(len(rows), now_ms, np.int64)
    vectors = vectors_at(state, bundle, rows, a, counters, clicks, last, moment)
    return Rows(rows, a, folded, clicks, counters, last, vectors, moment)


def changelog(new: Rows, ids: list[str], chosen: Array) -> pa.RecordBatch:
    """``ITEM_STATE`` of some of the values; ``ids`` names the rows."""
    return pa.record_batch(
        [
            pa.array([ids[row] for row in new.rows[chosen].tolist()], pa.string()),
            lists(new.a[chosen]),
            pa.array(new.folded[chosen]),
            pa.array(new.clicks[chosen]),
            lists(new.counters[chosen]),
            pa.array(new.last_click[chosen]),
            lists(new.extra[chosen]),
        ],
        schema=ITEM_STATE,
    )


def restore(rows: pa.RecordBatch, state: SideState) -> Rows:
    """The values of a changelog record, ready for :meth:`SideState.apply`."""
    a, counters, dim = state["a"].shape[1:], state["counters"].shape[1], state["vectors"].shape[1]
    return Rows(
        rows=state.rows(rows["id"].to_pylist()),
        a=flat(rows["a"], a[0] * a[1]).reshape(-1, *a),
        folded=rows["folded"].to_numpy(zero_copy_only=False),
        clicks=rows["clicks"].to_numpy(zero_copy_only=False),
        counters=flat(rows["counters"], counters),
        last_click=rows["last_click"].to_numpy(zero_copy_only=False),
        extra=flat(rows["vector"], dim),
        as_of=rows["last_click"].to_numpy(zero_copy_only=False),
    )
