"""The in-memory training set: examples in order of time, and what is known of every id at the cut.

Both come from the night's Parquet (:func:`load_training_set`) or straight from clicks
(:func:`training.window.make_examples`); nothing here runs per row.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from feature_repo.card import DatasetCard, Side
from training import features
from training.features import Inputs, InputSpec, Profile
from training.shares import CategoryShares

Array = np.ndarray


class ExamplesError(ValueError):
    """A training set is not what its contract says. The message names the file and the column."""


@dataclass(frozen=True)
class State:
    """What is known of one side's n ids at the cut, before any model: row r of everything belongs to ``ids[r]``.

    clicks: [n] clicks ever · counters: [n, H] as of ``last_click`` [n] ms (0 = never) · history: [n, L] rows of the
    item table, a ring in which the k-th click ever is at k mod L (queries; −1 = empty; L = 0 for items) · category: [n]
    the code that category alignment groups by (items; 0 = unknown).
    """

    ids: list[str]
    profile: Profile
    clicks: Array
    counters: Array
    last_click: Array
    history: Array
    category: Array

    def __len__(self) -> int:
        return len(self.ids)

    def inputs(self, spec: InputSpec, as_of: Array) -> Inputs:
        """What the tower reads of every id at the given moments [n] ms, but for the augmented vectors."""
        fast = features.dense(spec, self.profile, self.counters, self.clicks, self.last_click, as_of)
        return Inputs(np.arange(1, len(self) + 1), self.profile.codes, fast)


@dataclass(frozen=True)
class Examples:
    """R positives with S negatives each, in order of time, with features as of just before the click.

    query_rows: [R] rows of the query state (−1: unknown) · item_rows: [R, 1+S] rows of the item state, candidate 0 is
    the positive (−1: there is no such candidate, the losses leave it out) · event_time: [R] ms · query: R inputs ·
    item: R·(1+S) inputs, row-major · nights: where a night's vectors serve the day, [R] how many examples come before
    the night that serves each; the features are then of that night (None: of just before the click).
    """

    query_rows: Array
    item_rows: Array
    event_time: Array
    query: Inputs
    item: Inputs
    nights: Array | None = None

    def __len__(self) -> int:
        return len(self.query_rows)

    @property
    def known(self) -> Array:
        """[R] how many examples come before what is known when each is asked."""
        return np.arange(len(self)) if self.nights is None else self.nights

    @cached_property
    def asked(self) -> Array:
        """[R, 1+S] item_rows, −1 for items that were first clicked after an example's night: no answer holds them."""
        if self.nights is None:
            return self.item_rows
        items, first = np.unique(self.item_rows[:, 0], return_index=True)
        place = np.searchsorted(items, self.item_rows).clip(max=len(items) - 1)
        known = (items[place] == self.item_rows) & (first[place] < self.nights[:, None])
        return np.where(known, self.item_rows, -1)

    def batches(self, size: int) -> list[slice]:
        """Of consecutive examples that one night serves, ``size`` at most."""
        nights = [] if self.nights is None else np.flatnonzero(np.diff(self.nights)) + 1
        days = np.r_[0, nights, len(self)].astype(np.int64).tolist()
        return [
            slice(start, min(start + size, until))
            for since, until in zip(days[:-1], days[1:], strict=True)
            for start in range(since, until, size)
        ]

    @property
    def candidates(self) -> int:
        """1 + S."""
        return self.item_rows.shape[1]


@dataclass(frozen=True)
class TrainingSet:
    """Examples, both sides' states at the cut, and what each tower reads."""

    examples: Examples
    query: State
    item: State
    query_spec: InputSpec
    item_spec: InputSpec


def category_codes(side: Side, spec: InputSpec, profile: Profile) -> Array:
    """[n] the code of the side's category feature (its first value): 0 where it is unknown or there is none."""
    at = 0
    for field in spec.categories:
        if field.name == side.category:
            return profile.codes[:, at].astype(np.int64)
        at += field.slots
    return np.zeros(len(profile), np.int64)


def lookup(ids: Any, known: list[str]) -> Array:
    """Rows of ids in ``known``: −1 where it lacks them."""
    found = pc.index_in(ids, pa.array(known, pa.string()))
    return pc.fill_null(found, -1).to_numpy().astype(np.int64)


def ring(history: pa.Array, clicks: Array, item_ids: list[str], length: int) -> Array:
    """Histories (lists of item ids, newest last) → [n, length] the ring that :class:`State` describes."""
    owner = pc.list_parent_indices(history).to_numpy().astype(np.int64)
    sizes = np.bincount(owner, minlength=len(history))
    place = np.arange(len(owner)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    number = clicks[owner] - sizes[owner] + place
    latest = place >= sizes[owner] - length
    rows = np.full((len(history), length), -1, np.int32)
    rows[owner[latest], number[latest] % length] = lookup(pc.list_flatten(history), item_ids)[latest]
    return rows


def _whole(values: pa.ChunkedArray | pa.Array) -> pa.Array:
    return values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values


def _matrix(values: pa.Array, width: int) -> Array:
    """Lists of ``width`` floats → [n, width]; null is zeros."""
    matrix = np.zeros((len(values), width), np.float32)
    filled = pc.is_valid(values).to_numpy(zero_copy_only=False)
    matrix[filled] = pc.list_flatten(values).to_numpy(zero_copy_only=False).reshape(-1, width)
    return matrix


def _integers(values: pa.Array) -> Array:
    return pc.fill_null(values.cast(pa.int64()), 0).to_numpy(zero_copy_only=False)


def _activity(columns: Mapping[str, pa.Array], spec: InputSpec) -> tuple[Array, Array, Array]:
    """Clicks [n], counters [n, H] and last_click [n] of columns so named; null is "nothing before"."""
    counters = _matrix(columns["counters"], len(spec.decays_ms))
    return _integers(columns["clicks"]), counters, _integers(columns["last_click"])


def load_state(path: Path, side: Side, spec: InputSpec, items: list[str] | None = None, history: int = 0) -> State:
    """Read a side's state at the cut.

    Args:
        path: Parquet with id, the profile's columns, clicks, counters, last_click (and history, for queries).
        items: For queries: the item state's ids, to which histories point.
        history: L, how many of a query's latest items are kept.
    """
    table = pq.read_table(path)
    columns = {name: _whole(table[name]) for name in table.column_names}
    try:
        profile = features.encode(spec, columns, len(table))
        clicks, counters, last_click = _activity(columns, spec)
        ids = columns["id"].to_pylist()
        past = np.empty((len(ids), 0), np.int32) if items is None else ring(columns["history"], clicks, items, history)
    except KeyError as error:
        raise ExamplesError(f"{path} lacks the column {error}; it has: {', '.join(table.column_names)}") from None
    return State(ids, profile, clicks, counters, last_click, past, category_codes(side, spec, profile))


def load_examples(folder: Path, query: State, item: State, query_spec: InputSpec, item_spec: InputSpec) -> Examples:
    """Read the night's examples, sorted by (event_time, row_id).

    Args:
        folder: Of Parquet files with row_id, query_id, event_time, candidates and ``query__*``, ``item__*`` features;
            folders in it, ``date=…``, follow each other in time, and one at a time is turned into arrays.
        query, item: The states at the cut, whose rows the examples refer to.

    Raises:
        ExamplesError: a column is missing, or a row has not 1+S of everything.
    """
    parts = [_examples(part, query, item, query_spec, item_spec) for part in sorted(folder.glob("date=*")) or [folder]]
    if len(parts) == 1:
        return parts[0]
    return Examples(
        *(
            np.concatenate([getattr(part, name) for part in parts])
            for name in ("query_rows", "item_rows", "event_time")
        ),
        *(
            Inputs(*(np.concatenate([getattr(getattr(part, side), name) for part in parts]) for name in _INPUTS))
            for side in ("query", "item")
        ),
    )


_INPUTS = ("rows", "codes", "dense")


def _examples(folder: Path, query: State, item: State, query_spec: InputSpec, item_spec: InputSpec) -> Examples:
    table = pq.read_table(folder, partitioning=None).sort_by([("event_time", "ascending"), ("row_id", "ascending")])
    columns = {name: _whole(table[name]) for name in table.column_names}
    size = len(table)
    try:
        candidates = columns["candidates"]
        width = len(candidates[0]) if size else 1
        sides: dict[str, dict[str, pa.Array]] = {"query": {}, "item": {}}
        for name, values in columns.items():
            side, _, feature = name.partition("__")
            if side == "query" and feature:
                sides["query"][feature] = values
            elif side == "item" and feature:
                sides["item"][feature] = pc.list_flatten(values)
        flat = pc.list_flatten(candidates)
        for name, values in [("candidates", flat), *((f"item__{n}", v) for n, v in sides["item"].items())]:
            if len(values) != size * width:
                raise ExamplesError(f"{folder}: {name} has {len(values)} values in {size} rows of {width} candidates")
        time = _integers(columns["event_time"])
        query_rows = lookup(columns["query_id"], query.ids)
        item_rows = lookup(flat, item.ids)
        return Examples(
            query_rows,
            item_rows.reshape(size, width),
            time,
            _inputs(sides["query"], query_spec, query_rows, time),
            _inputs(sides["item"], item_spec, item_rows, np.repeat(time, width)),
        )
    except KeyError as error:
        raise ExamplesError(f"{folder} lacks the column {error}; it has: {', '.join(columns)}") from None


def _inputs(columns: Mapping[str, pa.Array], spec: InputSpec, rows: Array, as_of: Array) -> Inputs:
    profile = features.encode(spec, columns, len(rows))
    clicks, counters, last_click = _activity(columns, spec)
    return Inputs(rows + 1, profile.codes, features.dense(spec, profile, counters, clicks, last_click, as_of))


def load_training_set(folder: Path, card: DatasetCard) -> TrainingSet:
    """Read a whole ``training_sets/<date>`` folder: train/, query_state.parquet, item_state.parquet; of card.json, what
    the queries' counters count by category.
    """
    notes = folder / "card.json"
    shares = json.loads(notes.read_text()).get("shares") if notes.is_file() else None
    tables = {side: pq.read_table(folder / f"{side}_state.parquet") for side in ("query", "item")}
    known = {name: tables["query"][name] for name in card.query.tower_features}
    query_spec = features.fit(card.query, known, shares=CategoryShares(**shares) if shares else None)
    item_spec = features.fit(card.item, {name: tables["item"][name] for name in card.item.tower_features})
    item = load_state(folder / "item_state.parquet", card.item, item_spec)
    query = load_state(folder / "query_state.parquet", card.query, query_spec, item.ids, card.history)
    examples = load_examples(folder / "train", query, item, query_spec, item_spec)
    return TrainingSet(examples, query, item, query_spec, item_spec)
