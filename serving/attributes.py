"""What the catalogue says of a corpus's items, as columns that filters read."""

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from serving.filters import Condition, UnknownName, Where, key_of
from serving.index.subset import Subset

Array = np.ndarray
_COMPILED = 128  # filters kept


class CategoryColumn:
    """The values of one field: several a row."""

    def __init__(self, members: dict[str, Array] | None = None):
        """members: value → ascending rows."""
        self._members = members or {}
        self._changes: dict[str, dict[int, bool]] = {}  # value → rows that have come or gone since

    def put(self, row: int, before: Sequence[str], values: Sequence[str]) -> None:
        """File a row that had some values under others."""
        for value in before:
            self._changes.setdefault(value, {})[row] = False
        for value in values:
            self._changes.setdefault(value, {})[row] = True

    def members(self, value: str) -> Array | None:
        """Ascending rows that have a value; None: nothing has ever had it."""
        if changes := self._changes.pop(value, None):
            come, gone = ([row for row, has in changes.items() if has is kind] for kind in (True, False))
            known = self._members.get(value, np.empty(0, np.int64))
            self._members[value] = np.setdiff1d(np.union1d(known, come), gone).astype(np.int64)
        return self._members.get(value)

    def values(self) -> list[str]:
        return list({**self._members, **self._changes})


class Attributes:
    """Columns by field. One thread writes at a time; any number read.

    Args:
        categories: field → value → ascending rows. numbers: field → [n], NaN where unknown. rows: n.
    """

    def __init__(self, rows: int, categories: Mapping[str, dict[str, Array]], numbers: Mapping[str, Array]):
        self._rows = rows
        self._categories = {name: CategoryColumn(members) for name, members in categories.items()}
        self._numbers = {name: np.array(column, np.float64) for name, column in numbers.items()}
        self._changed = 0
        self._lock = threading.Lock()
        self._compiled: OrderedDict[str, tuple[int, int, Subset]] = OrderedDict()

    def grow(self, rows: int) -> None:
        """Have at least so many rows; of new ones nothing is known."""
        with self._lock:
            self._rows = max(self._rows, rows)
            for name, column in self._numbers.items():
                if rows > len(column):
                    room = np.full(rows * 9 // 8 + 1_024 - len(column), np.nan)
                    self._numbers[name] = np.concatenate([column, room])

    def put(self, row: int, before: Mapping[str, Any], features: Mapping[str, Any]) -> None:
        """Take over a row's features: lists and strings are categories, numbers and booleans are numbers.

        Args:
            before: Its features until now.
        """
        self.grow(row + 1)
        with self._lock:
            for name in {*before, *features}:
                old, new = categories_of(before.get(name)), categories_of(features.get(name))
                if old != new:
                    self._categories.setdefault(name, CategoryColumn()).put(row, old, new)
                value = features.get(name)
                if isinstance(value, int | float) or name in self._numbers:
                    column = self._numbers.setdefault(name, np.full(self._rows * 9 // 8 + 1_024, np.nan))
                    column[row] = value if isinstance(value, int | float) else np.nan
            self._changed += 1

    def counts(self, field: str) -> dict[str, int]:
        """Value → how many rows have it."""
        with self._lock:
            column = self._categories.get(field)
            sized = {} if column is None else {value: column.members(value) for value in column.values()}
        return {value: len(rows) for value, rows in sized.items() if rows is not None and len(rows)}

    def subset(self, where: Where) -> Subset:
        """The rows that meet all conditions; made once for as long as nothing changes.

        Raises:
            UnknownName: there is no such field, or no item has such a value.
        """
        key = key_of(where)
        with self._lock:
            made = self._compiled.get(key)
            if made is None or made[:2] != (self._changed, self._rows):
                met = np.ones(self._rows, bool)
                for field, condition in where.items():
                    met &= self._meets(field, condition)
                self._compiled[key] = made = self._changed, self._rows, Subset(np.flatnonzero(met))
            self._compiled.move_to_end(key)
            if len(self._compiled) > _COMPILED:
                self._compiled.popitem(last=False)
            return made[2]

    def _meets(self, field: str, condition: Condition) -> Array:
        met = np.ones(self._rows, bool)
        if condition.on_categories and field not in self._categories:
            raise UnknownName.of("field with categories", field, list(self._categories))
        if condition.on_numbers and field not in self._numbers:
            raise UnknownName.of("field with numbers", field, list(self._numbers))
        if condition.any is not None:
            met &= self._has(field, condition.any)
        for value in dict.fromkeys(condition.all or ()):
            met &= self._has(field, [value])
        if condition.none:
            met &= ~self._has(field, condition.none)
        if condition.on_numbers:
            column = self._numbers[field][: self._rows]
            for bound, compare in (
                (condition.gt, np.greater), (condition.gte, np.greater_equal),
                (condition.lt, np.less), (condition.lte, np.less_equal),
            ):  # fmt: skip
                if bound is not None:
                    met &= compare(column, bound)  # false of NaN
        return met

    def _has(self, field: str, values: Sequence[str]) -> Array:
        """Which rows have any of some values."""
        has = np.zeros(self._rows, bool)
        for value in dict.fromkeys(values):
            rows = self._categories[field].members(value)
            if rows is None:
                raise UnknownName.of(field, value, self._categories[field].values())
            has[rows] = True
        return has


def categories_of(value: Any) -> tuple[str, ...]:
    """A feature's values as categories; none of a number."""
    if isinstance(value, str):
        return (value,)
    return tuple(str(one) for one in value) if isinstance(value, list | tuple) else ()
