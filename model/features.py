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
from model.counters import decay

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
        """K: numbers, log-ages, log-counters, log-clicks."""
        return len(self.numbers) + len(self.times) + len(self.half_lives_ms) + 1


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
    """All that a tower reads of N examples, except the augmented vectors.

    rows: [N] int64 rows of the id embedding (0: an id that training did not see).
    codes: [N, C] int32 rows of the feature embedding E.
    dense: [N, K] float32.
    recent: [N, L] rows of the embedding of recent items, newest first (0: none); None for a tower that reads none.
    gap: [N, 5] the time since the click before (``model/memory.py``); None for a tower that does not read it.
    """

    rows: Array
    codes: Array
    dense: Array
    recent: Array | None = None
    gap: Array | None = None

    def take(self, index: Array | slice) -> "Inputs":
        recent = None if self.recent is None else self.recent[index]
        gap = None if self.gap is None else self.gap[index]
        return Inputs(self.rows[index], self.codes[index], self.dense[index], recent, gap)

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


def fit(side: Side, columns: Mapping[str, Any], max_slots: int = 8) -> InputSpec:
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
            x = x[np.isfinite(x)] if np.isfinite(x).any() else np.zeros(1)
            numbers.append(NumberField(name=name, mean=float(x.mean()), std=float(x.std()) or 1.0))
        else:
            times.append(name)
    return InputSpec(categories=categories, numbers=numbers, times=times, half_lives_ms=side.half_lives_ms)


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
        with np.errstate(over="ignore"):
            standard = ((x - number.mean) / number.std).astype(np.float32)
        numbers[:, k] = np.where(np.isfinite(standard), standard, 0)  # one infinite price would make all vectors NaN
    times = np.zeros((size, len(spec.times)), np.int64)
    for k, name in enumerate(spec.times):
        times[:, k] = pc.fill_null(_column(columns[name]).cast(pa.int64()), 0).to_numpy(zero_copy_only=False)
    return Profile(codes, numbers, times)


def dense(spec: InputSpec, profile: Profile, counters: Array, clicks: Array, last_click: Array, as_of: Array) -> Array:
    """The fast inputs at a moment: [N, K] float32.

    Args:
        counters: [N, H] as of ``last_click``.
        clicks: [N] clicks so far.
        last_click, as_of: [N] ms.
    """
    hours = np.where(profile.times > 0, np.maximum(as_of[:, None] - profile.times, 0) / 3_600_000, 0)
    return np.concatenate(
        [
            profile.numbers,
            np.log1p(hours).astype(np.float32),
            np.log1p(decay(counters, as_of - last_click, spec.half_lives_ms)),
            np.log1p(clicks.astype(np.float32))[:, None],
        ],
        axis=1,
    )
