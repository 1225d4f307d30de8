"""The query stage: clicks → a_u, and what each click tells the item stage (see :mod:`model.folds`).

One click of query u on item v at time t is worth, in this order: p_u, the query tower's output from what was known
just before it (as in training); the signal (v, p_u, t) for the item stage; and the fold of v into a_u.
"""

from dataclasses import dataclass, fields

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from model.bundle import Bundle
from model.folds import QueryFold
from model.ids import Ids
from model.recent_items import as_lists, from_lists
from model.state import EntityState, QueryUpdate
from streaming.clicks import Clicks
from streaming.kafka.records import QUERY_STATE, SIGNALS, WEIGHT
from streaming.stages.arrow import flat, group, lists
from streaming.stages.item_readings import ItemReadings
from streaming.stages.profiles import NewProfiles

Array = np.ndarray


@dataclass(frozen=True)
class QueryStep:
    """What a batch of N clicks on G queries comes to.

    update: the queries' new values · partitions: [G] of ``clicks``, hence of the changelog · items: [N] rows of the
    items · vectors: [N, d] of p_u from before each click, what a_v takes in · times: [N] ms · weights:
    [N] what each counts as.
    """

    update: QueryUpdate
    partitions: Array
    items: Array
    vectors: Array
    times: Array
    weights: Array


def step(clicks: Clicks, state: EntityState, profiles: NewProfiles, items: ItemReadings, bundle: Bundle) -> QueryStep:
    """Fold a batch of clicks; changes nothing except which ids have rows."""
    manifest = bundle.manifest
    ids, key = group(clicks.query_ids)
    rows = state.add(ids)
    profiles.fill(state, rows)
    item_rows = items.rows(clicks.item_ids, int(clicks.times.max(initial=0)))
    fold = QueryFold(
        state, rows, key, clicks.times, item_rows, items.read(item_rows), bundle.towers.memory, manifest.query,
        manifest.config, bundle.items.trained, clicks.weights,
    )  # fmt: skip
    vectors = bundle.towers.query(*fold.before())[:, : manifest.config.signal_dim]
    partitions = np.zeros(len(ids), np.int64)
    partitions[key] = clicks.partitions
    return QueryStep(fold.after(), partitions, item_rows, vectors, clicks.times, clicks.weights)


def empty(state: EntityState, gone: dict[str, int]) -> tuple[QueryUpdate, Array]:
    """Nothing, for queries that are forgotten, and the partitions of ``clicks`` where they are.

    Args:
        gone: Query → its partition. They must have no rows in the state, or new ones.
    """
    rows = state.add(gone)
    nothing = {
        name: np.full((len(rows), *column.shape[1:]), state.NAMES[name].fill, column.dtype)
        for name in (f.name for f in fields(QueryUpdate) if f.name != "rows")
        for column in [state.columns[name]]
    }
    return QueryUpdate(rows, **nothing), np.fromiter(gone.values(), np.int64)


def joined(one: QueryUpdate, two: QueryUpdate) -> QueryUpdate:
    """The rows of both."""
    return QueryUpdate(*(np.concatenate([getattr(one, f.name), getattr(two, f.name)]) for f in fields(QueryUpdate)))


def signals(step_: QueryStep, items: ItemReadings, chosen: Array) -> pa.RecordBatch:
    """``SIGNALS`` of some of the batch's clicks, in order."""
    rows = pa.record_batch(
        [
            items.ids.take(step_.items[chosen]).cast(pa.string()),
            lists(step_.vectors[chosen]),
            pa.array(step_.times[chosen]),
        ],
        schema=SIGNALS,
    )
    weights = step_.weights[chosen]
    return rows if (weights == 1).all() else rows.append_column(WEIGHT, pa.array(weights, pa.float32()))


def changelog(update: QueryUpdate, ids: Ids, item_ids: Ids, chosen: Array) -> pa.RecordBatch:
    """``QUERY_STATE`` of some of the values; ``ids`` and ``item_ids`` name the rows of both sides."""
    return pa.record_batch(
        [
            ids.take(update.rows[chosen]),
            lists(update.a[chosen]),
            pa.array(update.update_count[chosen]),
            pa.array(update.clicks[chosen]),
            lists(update.counters[chosen]),
            pa.array(update.last_click[chosen]),
            as_lists(update.recent_items[chosen], update.clicks[chosen], item_ids),
        ],
        schema=QUERY_STATE,
    )


def restore(batch: pa.RecordBatch, state: EntityState, items: ItemReadings) -> QueryUpdate:
    """The values of a changelog record. A query without clicks was forgotten: its row is another's from then on."""
    state.forget(batch["id"].filter(pc.equal(batch["clicks"], 0)).to_pylist())
    clicks, history = batch["clicks"].to_numpy(zero_copy_only=False), batch["history"]
    names = history.flatten().dictionary_encode()  # records tell of few items, many times
    item_rows = items.rows(names.dictionary.to_pylist(), 0)[names.indices.to_numpy()]
    return QueryUpdate(
        rows=state.add(batch["id"].to_pylist()),
        a=flat(batch["a"], state.a.shape[1]),
        update_count=batch["folded"].to_numpy(zero_copy_only=False),
        clicks=clicks,
        counters=flat(batch["counters"], state.counters.shape[1]),
        last_click=batch["last_click"].to_numpy(zero_copy_only=False),
        recent_items=from_lists(item_rows, history.offsets.to_numpy(), clicks, state.recent_items.shape[1]),
    )
