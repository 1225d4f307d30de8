"""From feature columns, as Feast returns them, to the arrays that a tower reads.

A side's inputs have a slow part and a fast part. The slow part, :class:`Profile`, is encoded once per id: category
codes, standardised numbers, times. The fast part, activity and age, depends on the moment and is computed by
:func:`dense` from O(1) state. Both are plain arrays, so that the trainer, the stream and the service share them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict

from feature_repo.card import Side
from training.activity import decay
from training.shares import CategoryShares, added, all_half_lives, shares

Array = np.ndarray
PADDING = 0  # the code of "no value"; its embedding is zero and is left out of means


class CategoryField(BaseModel):
    """A field of category codes: its values' codes are ``offset + 1 + index``, and ``offset`` is "never seen"."""

    model_config = ConfigDict(frozen=True)
    name: str
    slots: int
    offset: int
    values: list[str]
    separator: str | None = None


class NumberField(BaseModel):
    """A field that is standardised: ``(x − mean) / std``, 0 where unknown."""

    model_config = ConfigDict(frozen=True)
    name: str
    mean: float
    std: float


class InputSpec(BaseModel):
    """What one tower reads, fixed at training time and recorded in the bundle."""

    model_config = ConfigDict(frozen=True)
    categories: list[CategoryField]
    numbers: list[NumberField]
    times: list[str]
    half_lives_ms: tuple[int, ...]
    shares: CategoryShares | None = None

    @property
    def slots(self) -> int:
        """C: columns of category codes."""
        return sum(field.slots for field in self.categories)

    @property
    def codes(self) -> int:
        """D: rows of the embedding matrix E (paper, section 2.2.1), the padding's row 0 included."""
        return 1 + sum(1 + len(field.values) for field in self.categories)

    @property
    def dense_width(self) -> int:
        """K: numbers, log-ages, log-counters, log-clicks, category shares."""
        return len(self.numbers) + len(self.times) + len(self.decays_ms) + 1

    @property
    def decays_ms(self) -> tuple[int, ...]:
        """Half-lives of all H columns of the side's counters: the plain ones, then those by category."""
        return all_half_lives(self.half_lives_ms, self.shares)

    def added(self, categories: Array | None) -> Array | None:
        """[N, H] what clicks add to the counters, given the column of each one's category; None: one to each."""
        return None if self.shares is None else added(len(self.half_lives_ms), categories, self.shares.width)


@dataclass(frozen=True)
class Profile:
    """The slow inputs of N ids: codes [N, C] int32, numbers [N, Kn] float32, times [N, Kt] int64 (ms, 0 = unknown)."""

    codes: Array
    numbers: Array
    times: Array

    def take(self, rows: Array) -> "Profile":
        return Profile(self.codes[rows], self.numbers[rows], self.times[rows])

    def __len__(self) -> int:
        return len(self.codes)


@dataclass(frozen=True)
class Inputs:
    """All that a tower reads of N examples but the augmented vectors.

    rows: [N] int64 rows of the id embedding (0: an id that training did not see).
    codes: [N, C] int64 rows of the feature embedding E.
    dense: [N, K] float32.
    latest: [N, L] rows of the embedding of latest items, newest first (0: none); None for a tower that reads none.
    """

    rows: Array
    codes: Array
    dense: Array
    latest: Array | None = None

    def take(self, index: Array | slice) -> "Inputs":
        latest = None if self.latest is None else self.latest[index]
        return Inputs(self.rows[index], self.codes[index], self.dense[index], latest)

    def __len__(self) -> int:
        return len(self.rows)


def _column(values: Any) -> pa.Array:
    if isinstance(values, pa.ChunkedArray):
        return values.combine_chunks()
    return values if isinstance(values, pa.Array) else pa.array(values)


def _lists(values: pa.Array) -> tuple[pa.Array, Array, Array]:
    """Flat strings, and for each the row and the slot that it belongs to; scalars are lists of one."""
    if pa.types.is_list(values.type) or pa.types.is_large_list(values.type):
        rows = pc.list_parent_indices(values).to_numpy(zero_copy_only=False).astype(np.int64)
        flat = pc.list_flatten(values)
    else:
        rows, flat = np.arange(len(values)), values
    starts = np.searchsorted(rows, np.arange(len(values)))
    return flat.cast(pa.string()), rows, np.arange(len(rows)) - starts[rows]


def fit(side: Side, columns: Mapping[str, Any], max_slots: int = 8, shares: CategoryShares | None = None) -> InputSpec:
    """Learn vocabularies and scales of a side's profile features from columns of values (one row an id)."""
    categories, numbers, times, offset = [], [], [], 1
    for name, field in side.tower_features.items():
        values = _column(columns[name])
        if field.kind in ("category", "categories"):
            flat, _, slot = _lists(values)
            known = sorted(value for value in pc.unique(flat).to_pylist() if value)
            slots = min(max_slots, int(slot.max(initial=0)) + 1) if field.kind == "categories" else 1
            categories.append(CategoryField(name=name, slots=slots, offset=offset, values=known))
            offset += 1 + len(known)
        elif field.kind == "number":
            x = values.to_numpy(zero_copy_only=False).astype(np.float64)
            numbers.append(NumberField(name=name, mean=float(np.nanmean(x)), std=float(np.nanstd(x)) or 1.0))
        else:
            times.append(name)
    return InputSpec(
        categories=categories, numbers=numbers, times=times, half_lives_ms=side.half_lives_ms, shares=shares
    )


def encode(spec: InputSpec, columns: Mapping[str, Any], size: int) -> Profile:
    """Encode profile columns (Arrow arrays or lists, ``size`` rows; None = unknown) into the slow inputs."""
    codes = np.zeros((size, spec.slots), np.int32)
    at = 0
    for field in spec.categories:
        flat, rows, slots = _lists(_column(columns[field.name]))
        index = pc.index_in(flat, pa.array(field.values, pa.string()))
        code = pc.fill_null(index, -1).to_numpy(zero_copy_only=False) + 1 + field.offset
        keep = (slots < field.slots) & np.asarray(pc.is_valid(flat))
        codes[rows[keep], at + slots[keep]] = code[keep]
        at += field.slots
    numbers = np.zeros((size, len(spec.numbers)), np.float32)
    for k, number in enumerate(spec.numbers):
        x = _column(columns[number.name]).to_numpy(zero_copy_only=False).astype(np.float64)
        numbers[:, k] = np.nan_to_num((x - number.mean) / number.std)
    times = np.zeros((size, len(spec.times)), np.int64)
    for k, name in enumerate(spec.times):
        times[:, k] = pc.fill_null(_column(columns[name]).cast(pa.int64()), 0).to_numpy(zero_copy_only=False)
    return Profile(codes, numbers, times)


def share_columns(shares: CategoryShares, spec: InputSpec, profile: Profile) -> Array:
    """[n] the column of shares of each item, by the item tower's spec and profiles; unknown ones are others."""
    at, others = 0, shares.width - 1
    for field in spec.categories:
        if field.name == shares.feature:
            index = {value: k for k, value in enumerate(field.values)}
            column_of = np.full(spec.codes, others, np.int64)
            for column, value in enumerate(shares.categories):
                if value in index:
                    column_of[field.offset + 1 + index[value]] = column
            return column_of[profile.codes[:, at]]
        at += field.slots
    return np.full(len(profile), others, np.int64)


def dense(spec: InputSpec, profile: Profile, counters: Array, clicks: Array, last_click: Array, as_of: Array) -> Array:
    """The fast inputs at a moment: [N, K] float32.

    Args:
        counters: [N, H] as of ``last_click``; shares need no decay, since all categories decay alike.
        clicks: [N] clicks so far.
        last_click, as_of: [N] ms.
    """
    plain = len(spec.half_lives_ms)
    hours = np.where(profile.times > 0, np.maximum(as_of[:, None] - profile.times, 0) / 3_600_000, 0)
    return np.concatenate(
        [
            profile.numbers,
            np.log1p(hours).astype(np.float32),
            np.log1p(decay(counters[:, :plain], as_of - last_click, spec.half_lives_ms)),
            np.log1p(clicks.astype(np.float32))[:, None],
            shares(counters[:, plain:]),
        ],
        axis=1,
    )
