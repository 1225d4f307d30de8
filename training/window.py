"""A training set straight from clicks, in memory: the same rows as the night's Spark job writes, for experiments."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_repo.card import DatasetCard, Side
from training import features
from training.activity import count_each
from training.examples import Examples, State, TrainingSet, category_codes
from training.features import Inputs, InputSpec, Profile, share_columns
from training.shares import CategoryShares

Array = np.ndarray
ROUNDS = 50  # draws of a negative before its row is taken for one that has none


class Past:
    """Clicks of many keys in order of time, asked "what was known of this key just before that click?"."""

    def __init__(
        self, keys: Array, times_ms: Array, half_lives_ms: tuple[int, ...], size: int, added: Array | None = None
    ):
        """Args: keys [N] rows below ``size`` · times_ms [N] ascending · added: see :func:`count_each`."""
        self.times = times_ms
        self.counters = count_each(times_ms, keys, half_lives_ms, added)
        self.order = np.argsort(keys, kind="stable")  # by key, then time
        self.place = np.append(keys[self.order] * (len(keys) + 1) + self.order, np.iinfo(np.int64).max)
        self.starts = np.searchsorted(keys[self.order], np.arange(size + 1))

    def before(self, keys: Array, positions: Array) -> tuple[Array, Array, Array]:
        """Clicks [Q], counters [Q, H] and last_click [Q] of ``keys`` counting only clicks before ``positions`` [Q]."""
        if not len(self.order):
            nothing = np.zeros(len(keys), np.int64)
            return nothing, np.zeros((len(keys), self.counters.shape[1]), np.float32), nothing
        at = np.searchsorted(self.place, keys * (len(self.order) + 1) + positions)
        clicks = at - self.starts[keys]
        latest = self.order[np.maximum(at - 1, 0)]
        some = clicks > 0
        return clicks, self.counters[latest] * some[:, None], np.where(some, self.times[latest], 0)


def profile_columns(ids: list[str], catalogue: pa.Table, side: Side) -> dict[str, pa.Array]:
    """The catalogue's tower features in the order of ``ids``; null where it lacks the id."""
    index = pc.index_in(pa.array(ids, pa.string()), catalogue["id"].combine_chunks())
    return {name: catalogue[name].combine_chunks().take(index) for name in side.tower_features}


def make_state(
    ids: list[str],
    keys: Array,
    times: Array,
    catalogue: pa.Table,
    side: Side,
    shares: CategoryShares | None = None,
    categories: Array | None = None,
) -> tuple[State, InputSpec, Past]:
    """The state of ``ids`` after all clicks ``keys`` [N] at ``times`` [N], without histories.

    Args:
        shares, categories: What is counted by category (queries), and the column of each click's [N].
    """
    columns = profile_columns(ids, catalogue, side)
    spec = features.fit(side, columns, shares=shares)
    profile = features.encode(spec, columns, len(ids))
    past = Past(keys, times, spec.decays_ms, len(ids), spec.added(categories))
    clicks, counters, last_click = past.before(np.arange(len(ids)), np.full(len(ids), len(keys)))
    history = np.empty((len(ids), 0), np.int32)
    state = State(ids, profile, clicks, counters, last_click, history, category_codes(side, spec, profile))
    return state, spec, past


def histories(queries: Array, items: Array, size: int, length: int) -> Array:
    """Rings [size, length] of each query's latest items, from clicks in order of time."""
    order = np.argsort(queries, kind="stable")
    counts = np.bincount(queries, minlength=size)
    number = np.arange(len(queries)) - np.repeat(np.cumsum(counts) - counts, counts)
    keep = number >= counts[queries[order]] - length
    rings = np.full((size, length), -1, np.int32)
    rings[queries[order][keep], number[keep] % length] = items[order][keep]
    return rings


def draw_negatives(queries: Array, items: Array, existing: Array, per_positive: int, seed: int) -> Array:
    """[N, S] uniform among the items that existed at each click and that its query does not click in the window.

    Args:
        existing: [N] how many items existed just before each click; items are numbered in order of appearance.

    A row that has no such item (the log's first moments) gets −1.
    """
    random = np.random.default_rng(seed)
    width = int(items.max(initial=0)) + 1
    clicked = np.unique(queries * width + items)
    clicked = np.append(clicked, np.iinfo(np.int64).max)
    drawn = np.full((len(queries), per_positive), -1, np.int64)
    open_row, open_slot = np.nonzero((drawn < 0) & (existing[:, None] > 0))
    for _ in range(ROUNDS):
        guess = (random.random(len(open_row)) * existing[open_row]).astype(np.int64)
        key = queries[open_row] * width + guess
        fine = clicked[np.searchsorted(clicked, key)] != key
        drawn[open_row[fine], open_slot[fine]] = guess[fine]
        open_row, open_slot = open_row[~fine], open_slot[~fine]
        if not len(open_row):
            break
    return drawn


def make_examples(
    clicks: pa.Table,
    profiles: Mapping[str, pa.Table],
    card: DatasetCard,
    negatives: int = 4,
    seed: int = 0,
    nightly_until: int | None = None,
) -> TrainingSet:
    """The training set of all given clicks.

    Args:
        clicks: query_id, item_id, event_time (ms), in order of time; the cut is after the last.
        profiles: ``query`` and ``item`` catalogues, as :func:`feature_repo.source.read_profiles` returns them.
        negatives: S.
        nightly_until: The cut in ms, where vectors are made there and serve for the card's day: an example then knows
            what was known one, two, … days before the cut, whichever was last, and learns from what it will be used on.
    """
    time = clicks["event_time"].to_numpy().astype(np.int64)
    (query_ids, queries), (item_ids, items) = number(clicks["query_id"]), number(clicks["item_id"])
    item, item_spec, item_past = make_state(item_ids, items, time, profiles["item"], card.item)
    shares = CategoryShares.of(card, _clicks_by_category(items, item, item_spec, card))
    categories = share_columns(shares, item_spec, item.profile)[items] if shares else None
    query, query_spec, query_past = make_state(
        query_ids, queries, time, profiles["query"], card.query, shares, categories
    )
    query = replace(query, history=histories(queries, items, len(query_ids), card.history))
    # Items are numbered as they appear, so "exists before click r" is "has a number below the highest so far".
    existing = np.r_[0, np.maximum.accumulate(items)[:-1] + 1] if len(items) else items
    candidates = np.concatenate([items[:, None], draw_negatives(queries, items, existing, negatives, seed)], axis=1)
    as_of, nights = time, None
    if nightly_until is not None:
        as_of = nightly_until - -(-(nightly_until - time) // card.day_ms) * card.day_ms
        nights = np.searchsorted(time, as_of)
    position = np.arange(len(time)) if nights is None else nights
    flat, width = candidates.ravel(), 1 + negatives
    examples = Examples(
        queries,
        candidates,
        time,
        _inputs(query_spec, query.profile, queries, query_past.before(queries, position), as_of),
        _inputs(
            item_spec,
            item.profile,
            flat,
            item_past.before(np.maximum(flat, 0), np.repeat(position, width)),
            np.repeat(as_of, width),
        ),
        nights,
    )
    return TrainingSet(examples, query, item, query_spec, item_spec)


def _clicks_by_category(items: Array, item: State, spec: InputSpec, card: DatasetCard) -> dict[str, int]:
    counts = np.bincount(item.category[items], minlength=spec.codes)
    fields = [field for field in spec.categories if field.name == card.item.category]
    return {value: int(counts[f.offset + 1 + k]) for f in fields for k, value in enumerate(f.values)}


def number(ids: pa.ChunkedArray) -> tuple[list[str], Array]:
    """Distinct ids in order of appearance, and each row's number among them."""
    encoded = ids.combine_chunks().dictionary_encode()
    return encoded.dictionary.to_pylist(), encoded.indices.to_numpy().astype(np.int64)


def _inputs(spec: InputSpec, profile: Profile, rows: Array, past: tuple[Array, Array, Array], as_of: Array) -> Inputs:
    clicks, counters, last_click = past
    known = profile.take(rows)
    return Inputs(rows + 1, known.codes, features.dense(spec, known, counters, clicks, last_click, as_of))


def split_at(clicks: pa.Table, cut_ms: int) -> tuple[pa.Table, pa.Table]:
    """Clicks before the cut, and from it on."""
    at = int(np.searchsorted(clicks["event_time"].to_numpy(), cut_ms))
    return clicks.slice(0, at), clicks.slice(at)
