"""The item stage: signals → a_v, activity, and p_v, the vector that the index holds (see :mod:`model.folds`).

One signal (v, p_u, t) is worth a_v ← a_v + α (p_u − a_v) and one click counted. p_v is computed once per item and
batch, as of the item's latest click.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from model.bundle import Bundle
from model.features import Inputs, dense
from model.folds import fold_items, item_vectors
from model.ids import Ids
from model.state import EntityState, ItemUpdate
from streaming.kafka.records import ITEM_STATE, WEIGHT
from streaming.stages.arrow import flat, group, lists
from streaming.stages.profiles import NewProfiles

Array = np.ndarray


@dataclass(frozen=True)
class Signals:
    """N signals in the order of their records: item ids, p_u [N, d], times [N] ms, partitions [N], and
    what each counts as [N]."""

    item_ids: list[str]
    vectors: Array
    times: Array
    partitions: Array
    weights: Array

    def __len__(self) -> int:
        return len(self.item_ids)


@dataclass(frozen=True)
class ItemStep:
    """New values of G items.

    vectors: [G, d] p_v as of ``as_of`` [G] ms · partitions: [G] of ``item-signals``, hence of the changelog.
    """

    update: ItemUpdate
    vectors: Array
    as_of: Array
    partitions: Array

    def apply(self, state: EntityState) -> None:
        self.update.apply(state)
        state.put(self.update.rows, vectors=self.vectors, as_of=self.as_of)


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
        np.concatenate([np.ones(0, np.float32), *map(_weights, batches)]),
    )


def _weights(rows: pa.RecordBatch) -> Array:
    if WEIGHT not in rows.schema.names:
        return np.ones(len(rows), np.float32)
    return rows[WEIGHT].to_numpy(zero_copy_only=False)


def step(signals: Signals, state: EntityState, profiles: NewProfiles, bundle: Bundle) -> ItemStep:
    """Fold a batch of signals; changes nothing except which ids have rows."""
    manifest = bundle.manifest
    ids, key = group(signals.item_ids)
    rows = state.add(ids)
    profiles.fill(state, rows)
    update = fold_items(
        state, rows, key, signals.times, signals.vectors, manifest.item, manifest.config, signals.weights
    )
    profile = state.profile(rows)
    fast = dense(manifest.item, profile, update.counters, update.clicks, update.last_click, update.last_click)
    vectors = bundle.towers.item(Inputs(state.embedding_rows(rows), profile.codes, fast), update.a)
    partitions = np.zeros(len(ids), np.int64)
    partitions[key] = signals.partitions
    return ItemStep(update, vectors, update.last_click, partitions)


def recompute(rows: Array, state: EntityState, bundle: Bundle, now_ms: int, partitions: Array) -> ItemStep:
    """The same rows with p_v as of ``now_ms``."""
    names = ("a", "update_count", "clicks", "counters", "last_click")
    update = ItemUpdate(rows, *(getattr(state, name)[rows] for name in names))
    moment = np.full(len(rows), now_ms, np.int64)
    vectors = item_vectors(bundle.towers.item, state, bundle.manifest.item, rows, moment)
    return ItemStep(update, vectors, moment, partitions)


def changelog(step_: ItemStep, ids: Ids, chosen: Array) -> pa.RecordBatch:
    """``ITEM_STATE`` of some of the values; ``ids`` names the rows."""
    update = step_.update
    return pa.record_batch(
        [
            ids.take(update.rows[chosen]),
            lists(update.a[chosen]),
            pa.array(update.update_count[chosen]),
            pa.array(update.clicks[chosen]),
            lists(update.counters[chosen]),
            pa.array(update.last_click[chosen]),
            lists(step_.vectors[chosen]),
        ],
        schema=ITEM_STATE,
    )


def restore(batch: pa.RecordBatch, state: EntityState) -> ItemStep:
    """The values of a changelog record."""
    last_click = batch["last_click"].to_numpy(zero_copy_only=False)
    update = ItemUpdate(
        rows=state.add(batch["id"].to_pylist()),
        a=flat(batch["a"], state.a.shape[1]),
        update_count=batch["folded"].to_numpy(zero_copy_only=False),
        clicks=batch["clicks"].to_numpy(zero_copy_only=False),
        counters=flat(batch["counters"], state.counters.shape[1]),
        last_click=last_click,
    )
    partitions = np.zeros(len(batch), np.int64)
    return ItemStep(update, flat(batch["vector"], state.vectors.shape[1]), last_click, partitions)
