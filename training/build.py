"""The tables of a training set, in memory: what the night's Spark job writes, for evaluation and tests.

Both run the same functions where a choice is made (:func:`draw`, :func:`existing_from`), and a test holds their tables
to each other on several markets.
"""

from collections.abc import Mapping, Sequence
from zlib import crc32

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_repo.card import DatasetCard, Side
from model import splitmix
from model.counters import count
from model.event_weights import weights_of
from model.recent_items import append, as_lists
from model.scan import Groups
from training.training_set import PROFILE, Tables

Array = np.ndarray
NEVER = np.iinfo(np.int64).max
SPAN_MS = 1_000_000


def build_tables(
    before: pa.Table, window: pa.Table, catalogues: Mapping[str, pa.Table], card: DatasetCard, cut_ms: int,
    negatives: int, seed: int,
) -> Tables:  # fmt: skip
    """The tables of a window of clicks.

    Args:
        before, window: event_id, query_id, item_id, event_time, and event_type where the card gives types weights; in
            the order of the fold, the window's clicks last.
        catalogues: ``query`` and ``item``: id and a column a feature.
        cut_ms: The end of the window.
    """
    log = pa.concat_tables([before, window]).combine_chunks()
    first = len(before)
    item_ids, since = existing_from(log, catalogues["item"], card, cut_ms)
    query_ids = pc.unique(log["query_id"]).sort()
    queries = pc.index_in(log["query_id"].combine_chunks(), query_ids).to_numpy().astype(np.int64)
    items = pc.index_in(log["item_id"].combine_chunks(), item_ids).to_numpy().astype(np.int64)
    times = log["event_time"].to_numpy()
    weights = weights_of(log, card.clicks.rule)
    drawn = draw(hashes(window["event_id"].to_pylist()), times[first:], np.sort(since), negatives, seed)
    clicks = pa.table(
        {
            "query": queries[first:].astype(np.int32),
            "item": items[first:].astype(np.int32),
            "event_time": times[first:],
            "negatives": list_column(drawn),
        }
    )
    if weights is not None:
        clicks = clicks.append_column("weight", pa.array(weights[first:]))
    earlier = None if weights is None else weights[:first]
    sides = []
    for ids, rows, side, name in ((query_ids, queries, card.query, "query"), (item_ids, items, card.item, "item")):
        groups = Groups.of(rows[:first], len(ids))
        none = np.zeros((len(ids), len(side.half_lives_ms))), np.zeros(len(ids), np.int64)
        counters, last_click = count(groups, *none, times[:first], side.half_lives_ms, earlier).after()
        columns = {"id": ids} | profile_columns(ids, catalogues[name], side)
        columns |= {"clicks": groups.counts, "counters": list_column(counters), "last_click": last_click}
        if name == "query":
            rings = np.full((len(ids), card.history), -1, np.int32)
            rings = append(groups, items[:first], rings, np.zeros(len(ids), np.int64))
            columns["recent_items"] = as_lists(rings, groups.counts, None)
        else:
            columns["since"] = since
        sides.append(pa.table(columns))
    return Tables(clicks, *sides)


def existing_from(log: pa.Table, catalogue: pa.Table, card: DatasetCard, cut_ms: int) -> tuple[pa.Array, Array]:
    """The items that a model of this cut knows, and from when each exists [I] ms; in this order.

    An item exists from the earlier of its ``created`` and its first click. One that the catalogue lists without either
    does not exist yet: as a candidate that was never a negative it would be told by its lack of clicks, and stand
    first; as a negative it would teach nothing else (measured: docs/model.md).
    """
    times = log["event_time"].to_numpy()
    clicked, first = np.unique(log["item_id"].to_numpy(zero_copy_only=False).astype(str), return_index=True)
    created = np.full(len(catalogue), NEVER)
    if card.item.created and len(catalogue):
        created = pc.fill_null(catalogue[card.item.created].cast(pa.int64()), NEVER).to_numpy()
    listed = catalogue["id"].to_numpy(zero_copy_only=False).astype(str)
    ids = np.union1d(clicked, listed)
    since = np.full(len(ids), NEVER)
    since[np.searchsorted(ids, listed)] = created
    place = np.searchsorted(ids, clicked)
    since[place] = np.minimum(since[place], times[first])
    known = since < cut_ms
    ids, since = ids[known], since[known]
    order = np.lexsort((ids, since))
    return pa.array(ids[order], pa.string()), since[order]


def in_fold_order(clicks: pa.Table, card: DatasetCard) -> pa.Table:
    """Clicks by time; within a moment by their place in the log where the card trusts it, else by event id."""
    return clicks.sort_by([(name, "ascending") for name in ("event_time", *card.clicks.tie, "event_id")])


def lay_out(clicks: pa.Table) -> pa.Table:
    """Give the clicks of a log that has only positions event times, from 1 to SPAN_MS, in the order of the fold.

    Each query's clicks are spread over the whole span. Positions would put every query's first clicks before anyone's
    tenth, and late moments would belong to the few queries with many clicks. A query begins at a phase of its own, the
    CRC-32 of its id.

    Args:
        clicks: In the order of the fold.
    """
    ids, queries = encoded(clicks["query_id"])
    times = spread(ids.to_pylist(), queries)
    return clicks.set_column(clicks.column_names.index("event_time"), "event_time", pa.array(times))


def spread(ids: Sequence[str], queries: Array) -> Array:
    """[N] the times that :func:`lay_out` gives to clicks of some queries [N], rows of ``ids``."""
    groups = Groups.of(queries, len(ids))
    phase = hashes(ids) / 2**32
    return np.floor((groups.rank + phase[queries]) / groups.counts[queries] * SPAN_MS).astype(np.int64) + 1


def last_clicks(clicks: pa.Table) -> Array:
    """[N] whether each click is its query's last; the clicks are in the order of the fold."""
    ids, queries = encoded(clicks["query_id"])
    groups = Groups.of(queries, len(ids))
    return groups.rank == groups.counts[queries] - 1


def encoded(ids: pa.ChunkedArray) -> tuple[pa.Array, Array]:
    """Distinct ids in order of appearance, and each row's number among them."""
    dictionary = ids.combine_chunks().dictionary_encode()
    return dictionary.dictionary, dictionary.indices.to_numpy().astype(np.int64)


def hashes(ids: Sequence[str]) -> Array:
    """[N] uint64: the CRC-32 of each id, which Spark computes alike."""
    return np.fromiter((crc32(key.encode()) for key in ids), np.uint64, len(ids))


def draw(hashes: Array, times: Array, since: Array, negatives: int, seed: int) -> Array:
    """Negatives of N clicks (paper, section 2.3): [N, S] int32 item rows, uniform among the items that existed.

    Args:
        hashes: [N] of the clicks' event ids; with the seed, all that a draw depends on.
        times: [N] ms. since: [I] ms, ascending: from when each item exists.

    A click whose moment no item is older than gets −1.
    """
    existing = np.searchsorted(since, times)
    drawn: Array = np.floor(random_numbers(hashes, negatives, seed) * existing[:, None]).astype(np.int32)
    drawn[existing == 0] = -1
    return drawn


def random_numbers(hashes: Array, width: int, seed: int) -> Array:
    """[N] hashes → [N, width] uniform numbers in [0, 1), which no order of rows changes."""
    with np.errstate(over="ignore"):
        keys = (hashes.astype(np.uint64) + (np.uint64(seed) << np.uint64(32))) * np.uint64(width + 1)
        steps = (keys[:, None] + np.arange(1, width + 1, dtype=np.uint64)) * splitmix.STEP
    return splitmix.unit(splitmix.mix(steps))


def profile_columns(ids: pa.Array, catalogue: pa.Table, side: Side) -> dict[str, pa.Array]:
    """The catalogue's features in the order of ``ids``; null where it lacks the id."""
    index = pc.index_in(ids, catalogue["id"].combine_chunks())
    return {PROFILE + name: catalogue[name].combine_chunks().take(index) for name in side.features}


def list_column(values: Array) -> pa.ListArray:
    """[N, W] as a column of lists."""
    offsets = np.arange(len(values) + 1, dtype=np.int32) * values.shape[1]
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(np.ascontiguousarray(values).ravel()))
