"""The query stage: clicks → a_u, and what each click tells the item stage.

One click of query u on item v at time t is worth, in this order: p_u, the query tower's output from what was known
just before t (as in training); the signal (v, p_u, t) for the item stage; and a_u ← a_u + α (p_v − a_u).
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from streaming.clicks import Clicks
from streaming.item_vectors import ItemVectors
from streaming.sequence import activity, group
from streaming.state import Rows, SideState, flat, lists
from streaming.topics import QUERY_STATE, SIGNALS
from training.amm import fold, ranks_within
from training.bundle import Bundle
from training.dat import represent
from training.features import Inputs, dense
from training.history import in_batch, tower_rows

Array = np.ndarray


@dataclass(frozen=True)
class QueryStep:
    """What a batch of N clicks on G queries comes to.

    new: the queries' new values · partitions: [G] of ``clicks``, hence of the changelog · items: [N] rows of the item
    vectors · vectors: [N, d] p_u from before each click · times: [N] ms.
    """

    new: Rows
    partitions: Array
    items: Array
    vectors: Array
    times: Array


def step(clicks: Clicks, state: SideState, items: ItemVectors, bundle: Bundle) -> QueryStep:
    """Fold a batch of clicks; changes nothing but which ids have rows."""
    config = bundle.manifest.config
    memories = config.memories_of("query")
    ids, groups = group(clicks.query_ids)
    rows = state.rows(ids)
    state.fill_profiles(rows)
    item_rows = items.rows(clicks.item_ids, int(clicks.times.max(initial=0)))
    folded = fold(state["a"][rows], state["folded"][rows], groups, items.vectors[item_rows], memories)
    added = state.spec.added(items.categories(item_rows))
    counted = activity(
        state["counters"][rows], state["last_click"][rows], groups, clicks.times, state.spec.decays_ms, added
    )
    clicks_before = state["clicks"][rows][groups] + ranks_within(groups)
    profile = state.profile(rows[groups])
    fast = dense(state.spec, profile, counted.before, clicks_before, counted.before_last, clicks.times)
    history = state["history"][rows]
    latest = None
    if config.latest:
        before = in_batch(groups, item_rows, history, state["clicks"][rows], config.latest)
        latest = tower_rows(before, len(bundle.items.ids))
    inputs = Inputs(state.tower_rows(rows[groups]), profile.codes, fast, latest)
    vectors = represent(bundle.model.query_tower, inputs, folded.before)

    clicked = np.bincount(groups, minlength=len(ids))
    if history.shape[1]:
        history[groups, clicks_before % history.shape[1]] = item_rows  # a key's later click overwrites, as a ring does
    partitions = np.zeros(len(ids), np.int64)
    partitions[groups] = clicks.partitions
    new = Rows(
        rows=rows, a=folded.after, folded=state["folded"][rows] + clicked, clicks=state["clicks"][rows] + clicked,
        counters=counted.after, last_click=counted.latest, extra=history,
    )  # fmt: skip
    return QueryStep(new, partitions, item_rows, vectors, clicks.times)


def signals(step_: QueryStep, items: ItemVectors, chosen: Array) -> pa.RecordBatch:
    """``SIGNALS`` of some of the batch's clicks, in order."""
    return pa.record_batch(
        [pa.array(items.ids[step_.items[chosen]]), lists(step_.vectors[chosen]), pa.array(step_.times[chosen])],
        schema=SIGNALS,
    )


def changelog(new: Rows, ids: list[str], item_ids: Array, chosen: Array) -> pa.RecordBatch:
    """``QUERY_STATE`` of some of the values; ``ids`` and ``item_ids`` name the rows of both sides."""
    return pa.record_batch(
        [
            pa.array([ids[row] for row in new.rows[chosen].tolist()], pa.string()),
            lists(new.a[chosen]),
            pa.array(new.folded[chosen]),
            pa.array(new.clicks[chosen]),
            lists(new.counters[chosen]),
            pa.array(new.last_click[chosen]),
            unroll(new.extra[chosen], new.clicks[chosen], item_ids),
        ],
        schema=QUERY_STATE,
    )


def unroll(rings: Array, clicks: Array, item_ids: Array) -> pa.ListArray:
    """Histories [G] as lists of item ids, newest last, of rings [G, L] after ``clicks`` [G] clicks."""
    length = rings.shape[1]
    if not length:
        return pa.array([[]] * len(rings), pa.list_(pa.string()))
    oldest = np.where(clicks > length, clicks % length, 0)
    ordered = np.take_along_axis(rings, (oldest[:, None] + np.arange(length)) % length, axis=1)
    filled = ordered >= 0
    offsets = np.r_[0, np.cumsum(filled.sum(1))].astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(item_ids[ordered[filled]], pa.string()))


def roll(histories: pa.ListArray, clicks: Array, length: int, items: ItemVectors) -> Array:
    """The opposite of :func:`unroll`: rings [G, length] int32 of rows of the item vectors."""
    rings = np.full((len(histories), length), -1, np.int32)
    if length:
        counts = histories.value_lengths().to_numpy(zero_copy_only=False).astype(np.int64)
        owner = np.repeat(np.arange(len(histories)), counts)
        place = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
        # The k-th click ever is at k mod L, and the list ends with click number clicks − 1.
        at = (clicks[owner] - counts[owner] + place) % length
        rings[owner, at] = items.rows(histories.flatten().to_pylist(), 0)
    return rings


def restore(rows: pa.RecordBatch, state: SideState, items: ItemVectors) -> Rows:
    """The values of a changelog record, ready for :meth:`SideState.apply`."""
    a, counters, history = state["a"].shape[1:], state["counters"].shape[1], state["history"].shape[1]
    clicks = rows["clicks"].to_numpy(zero_copy_only=False)
    return Rows(
        rows=state.rows(rows["id"].to_pylist()),
        a=flat(rows["a"], a[0] * a[1]).reshape(-1, *a),
        folded=rows["folded"].to_numpy(zero_copy_only=False),
        clicks=clicks,
        counters=flat(rows["counters"], counters),
        last_click=rows["last_click"].to_numpy(zero_copy_only=False),
        extra=roll(rows["history"], clicks, history, items),
    )
