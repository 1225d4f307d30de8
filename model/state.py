"""What is known of one side's ids, as arrays: one row an id, for training, evaluation, stream and service alike."""

from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, overload

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.numpy import save_file

from model.arrays import map_arrays, writable
from model.features import Inputs, InputSpec, Profile, dense
from model.ids import Ids

Array = np.ndarray


class Column:
    """A column of :class:`EntityState`, as an array of its rows.

    Args:
        fill: What rows of new ids hold.
    """

    def __init__(self, fill: int = 0):
        self.fill = fill

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, state: None, owner: type) -> "Column": ...
    @overload
    def __get__(self, state: "EntityState", owner: type) -> Array: ...
    def __get__(self, state: "EntityState | None", owner: type) -> "Array | Column":
        return self if state is None else state.columns[self.name][: len(state)]


class EntityState:
    """The state of n ids. Row r belongs to ``ids[r]`` and has row r+1 of the tower's id embedding, if training knew it.

    Columns: codes [n, C] int32, numbers [n, Kn] float32, times [n, Kt] int64 ms: the :class:`Profile` · a [n, A]
    augmented vector · update_count [n] clicks folded into it · clicks [n] clicks ever · counters [n, H] as of
    last_click [n] ms (0: never) · recent_items [n, L] ring of item rows (queries; −1: empty) · vectors [n, d] the
    tower's output as of ``as_of`` [n] ms · since [n] ms, from when an item exists.
    """

    codes, numbers, times = Column(), Column(), Column()
    a, update_count = Column(), Column()
    clicks, counters, last_click = Column(), Column(), Column()
    recent_items = Column(-1)
    vectors, as_of = Column(), Column()
    since = Column()
    NAMES: ClassVar[dict[str, Column]] = {}

    def __init__(self, ids: Iterable[str] | pa.ChunkedArray, **columns: Array):
        """Columns that are not given have no width (or, of one number an id, are 0)."""
        self.ids = ids.copy() if isinstance(ids, Ids) else Ids(ids)
        self.trained = len(self.ids)
        """How many ids training knew: the rest came later."""
        self.columns = {name: columns.get(name, _default(name, len(self.ids))) for name in self.NAMES}

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def nbytes(self) -> int:
        """Bytes of the columns; ids come on top."""
        return sum(array.nbytes for array in self.arrays().values())

    def arrays(self) -> dict[str, Array]:
        """The columns without the room behind them, which holds anything."""
        return {name: column[: len(self)] for name, column in self.columns.items()}

    def rows(self, ids: Iterable[str]) -> Array:
        """[N] rows of some ids; −1 for those that are not known."""
        return self.ids.rows(ids)

    def add(self, ids: Iterable[str]) -> Array:
        """[N] rows of some ids; ids that are new get a row with nothing in it."""
        first = len(self.ids)
        rows = self.ids.add(ids)
        if len(self.ids) > first:
            self._grow(first, len(self.ids))
        return rows

    def forget(self, ids: Iterable[str]) -> Array:
        """Blank the rows of some ids and take the ids off them: whoever comes again under one is new, also to training.

        Rows stay where they are, since files of a bundle name them by number. Returns the rows.
        """
        rows = self.ids.forget(ids)
        for name in self.columns if len(rows) else ():
            self.columns[name][rows] = self.NAMES[name].fill
        return rows

    def _grow(self, first: int, size: int) -> None:
        for name, column in self.columns.items():
            if size > len(column):
                room = max(size, len(column) * 3 // 2)
                self.columns[name] = np.empty((room, *column.shape[1:]), column.dtype)
                self.columns[name][:first] = column[:first]
            self.columns[name][first:size] = self.NAMES[name].fill

    def put(self, rows: Array, **values: Array) -> None:
        """Write values of some rows."""
        for name, value in values.items():
            self.columns[name][rows] = value

    def profile(self, rows: Array | slice = slice(None)) -> Profile:
        return Profile(self.codes[rows], self.numbers[rows], self.times[rows])

    def embedding_rows(self, rows: Array) -> Array:
        """Rows of the tower's id embedding; an id that training did not see has the shared row 0."""
        return np.where((rows >= 0) & (rows < self.trained), rows + 1, 0)

    def inputs(self, spec: InputSpec, rows: Array, as_of: Array) -> Inputs:
        """What a tower reads of some rows [N] at the moments [N] ms, without augmented vectors and recent items."""
        fast = dense(spec, self.profile(rows), self.counters[rows], self.clicks[rows], self.last_click[rows], as_of)
        return Inputs(self.embedding_rows(rows), self.codes[rows], fast)

    def copy(self) -> "EntityState":
        """An independent state. Files that are mapped stay mapped: only what is written to takes memory."""
        size, room = len(self), max(len(self), _ROOM)
        columns = {n: writable(c if len(c) == size else c[:size], room) for n, c in self.columns.items()}
        copied = EntityState(self.ids, **columns)
        copied.trained = self.trained
        return copied

    def without(self, ids: Iterable[str]) -> "EntityState":
        """The same columns, where no id leads to the rows of some ids."""
        left = EntityState(self.ids, **self.columns)
        left.ids.forget(ids)
        left.trained = self.trained
        return left

    def save(self, folder: Path, side: str) -> None:
        """Write ``<side>.safetensors`` and ``<side>_ids.parquet``."""
        save_file({n: np.ascontiguousarray(c) for n, c in self.arrays().items()}, folder / f"{side}.safetensors")
        pq.write_table(pa.table({"id": self.ids}), folder / f"{side}_ids.parquet")

    @classmethod
    def load(cls, folder: Path, side: str) -> "EntityState":
        """Read what :meth:`save` wrote; the arrays are mapped.

        Raises:
            OSError, ValueError, KeyError: a file is missing or damaged.
        """
        ids = pq.read_table(folder / f"{side}_ids.parquet")["id"]
        columns = map_arrays(folder / f"{side}.safetensors")
        return cls(ids, **{name: column for name, column in columns.items() if name in cls.NAMES})


_ROOM = 1 << 16  # rows at least for ids that come later; addresses, and memory only as they come
EntityState.NAMES = {name: value for name, value in vars(EntityState).items() if isinstance(value, Column)}
_KINDS: dict[str, type] = {"codes": np.int32, "times": np.int64, "recent_items": np.int32} | dict.fromkeys(
    ("numbers", "a", "counters", "vectors"), np.float32
)


def _default(name: str, size: int) -> Array:
    return np.zeros((size, 0), _KINDS[name]) if name in _KINDS else np.zeros(size, np.int64)


@dataclass(frozen=True)
class QueryUpdate:
    """New values of G rows of the query state: see :class:`EntityState`."""

    rows: Array
    a: Array
    update_count: Array
    clicks: Array
    counters: Array
    last_click: Array
    recent_items: Array

    def apply(self, state: EntityState) -> None:
        _apply(self, state)


@dataclass(frozen=True)
class ItemUpdate:
    """New values of G rows of the item state: see :class:`EntityState`."""

    rows: Array
    a: Array
    update_count: Array
    clicks: Array
    counters: Array
    last_click: Array

    def apply(self, state: EntityState) -> None:
        _apply(self, state)


def _apply(update: Any, state: EntityState) -> None:
    state.put(update.rows, **{f.name: getattr(update, f.name) for f in fields(update) if f.name != "rows"})
