"""The items of one bundle, as they are now: their ids, vectors, activity and categories."""

import threading
from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa

from serving.config import IndexConfig
from serving.live_index import LiveIndex
from training.bundle import Bundle
from training.features import CategoryField

Array = np.ndarray


class Corpus:
    """Item table and live index of one bundle. One thread (the follower) writes; any number read.

    Row r is item ``ids[r]``: the bundle's items first, in its order, then items in order of their first click. An id is
    appended before its vector becomes findable, so a reader can always name what it found.
    """

    def __init__(self, bundle: Bundle, category_field: str | None = None, config: IndexConfig | None = None):
        items = bundle.items
        self.version = bundle.version
        self.ids: list[str] = list(items.ids)
        self._row = {id_: row for row, id_ in enumerate(self.ids)}
        self._clicks = np.array(items.clicks, np.int64)
        self._last_click = np.array(items.last_click, np.int64)
        self._counters = np.array(items.counters, np.float32)
        half_lives = bundle.manifest.item.half_lives_ms
        # Neither the noisiest nor the slowest counter says what is popular lately.
        self._trailing = len(half_lives) // 2
        self._half_life = half_lives[self._trailing] if half_lives else 1
        self._category_lock = threading.Lock()
        self._field, self._codes = _category_codes(bundle, category_field)
        self._members = _members(self._field, self._codes)
        self._later: dict[int, list[str]] = {}  # categories of items that came after the bundle
        self.newest_event = int(max(bundle.manifest.cut_ms, self._last_click.max(initial=0)))
        self.updates = 0
        self.index = LiveIndex(items.vectors, config, bundle.queries.vectors)

    def __len__(self) -> int:
        return len(self.index)

    def row(self, id_: str) -> int | None:
        return self._row.get(id_)

    def rows(self, ids: Iterable[str]) -> Array:
        """Rows of the ids that are known, in their order."""
        known = (self._row.get(id_) for id_ in ids)
        return np.fromiter((row for row in known if row is not None), np.int64)

    def apply(self, state: pa.RecordBatch) -> list[str]:
        """Take over rows of ``ITEM_STATE``; returns the ids that were new.

        Values are absolute, so that applying a batch again changes nothing.
        """
        ids = state["id"].to_pylist()
        new = [id_ for id_ in dict.fromkeys(ids) if id_ not in self._row]
        if new:
            start = len(self.ids)
            pad = len(new)
            self._clicks = np.concatenate([self._clicks, np.zeros(pad, np.int64)])
            self._last_click = np.concatenate([self._last_click, np.zeros(pad, np.int64)])
            self._counters = np.concatenate([self._counters, np.zeros((pad, self._counters.shape[1]), np.float32)])
            self.ids.extend(new)
            self._row.update((id_, start + k) for k, id_ in enumerate(new))
        rows = np.fromiter((self._row[id_] for id_ in ids), np.int64, len(ids))
        self._clicks[rows] = state["clicks"].to_numpy()
        self._last_click[rows] = last_click = state["last_click"].to_numpy()
        self._counters[rows] = _matrix(state["counters"], self._counters.shape[1])
        self.index.upsert(rows, _matrix(state["vector"], self.index.dimension))
        self.newest_event = max(self.newest_event, int(last_click.max(initial=0)))
        self.updates += len(rows)
        return new

    def categories(self) -> dict[str, int]:
        """Category → how many items it has."""
        with self._category_lock:
            return {name: len(rows) for name, rows in self._members.items()}

    def in_category(self, category: str) -> Array:
        """Rows of a category's items; none if nobody knows it."""
        with self._category_lock:
            return self._members.get(category, np.empty(0, np.int64))

    def category_of(self, row: int) -> list[str]:
        if row < len(self._codes):
            return [self._field.values[code] for code in self._codes[row] if 0 <= code < len(self._field.values)]
        return self._later.get(row, [])

    def set_category(self, id_: str, names: Sequence[str]) -> None:
        """File an item that came after the bundle under its categories."""
        row = self._row[id_]
        with self._category_lock:
            self._later[row] = list(names)
            for name in names:
                self._members[name] = np.union1d(self._members.get(name, np.empty(0, np.int64)), [row])

    def activity(self, row: int) -> tuple[int, int]:
        """Clicks ever and the time of the last one (ms; 0: never)."""
        return int(self._clicks[row]), int(self._last_click[row])

    def popular(self, n: int, exclude: Array, only: Array | None = None) -> tuple[Array, Array]:
        """The n items most clicked lately: rows, and scores in (0, 1], the best one's being 1.

        All counters of one half-life decay alike, so the order at any moment is that of ``log2 c + last/half-life``.
        """
        rows = np.arange(len(self._clicks)) if only is None else only[only < len(self._clicks)]
        with np.errstate(divide="ignore"):
            heat = (
                np.log2(self._counters[rows, self._trailing].astype(np.float64))
                if self._counters.shape[1]
                else np.log2(self._clicks[rows])
            )
        heat = heat + self._last_click[rows] / self._half_life
        heat[np.isin(rows, exclude)] = -np.inf
        order = np.lexsort((rows, -heat))[:n]
        order = order[np.isfinite(heat[order])]
        return rows[order], np.exp2(heat[order] - heat[order].max(initial=-np.inf)) if len(order) else heat[order]


def _matrix(column: pa.Array, width: int) -> Array:
    """A column of lists [N] of ``width`` numbers each as an array [N, width]."""
    return column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), width)


def _category_codes(bundle: Bundle, name: str | None) -> tuple[CategoryField | None, Array]:
    """The item tower's field called ``name`` (None: its first), and each item's values in it [n, slots].

    A value is an index into ``field.values``; anything outside them is no value.
    """
    at = 0
    for field in bundle.manifest.item.categories:
        if name in (None, field.name):
            return field, np.asarray(bundle.items.codes[:, at : at + field.slots]) - field.offset - 1
        at += field.slots
    return None, np.empty((0, 0), np.int32)


def _members(field: CategoryField | None, codes: Array) -> dict[str, Array]:
    """Category → rows of its items."""
    if field is None:
        return {}
    rows, slots = np.nonzero((codes >= 0) & (codes < len(field.values)))
    values = codes[rows, slots]
    order = np.argsort(values, kind="stable")
    bounds = np.searchsorted(values[order], np.arange(len(field.values) + 1))
    members = {name: rows[order[bounds[k] : bounds[k + 1]]] for k, name in enumerate(field.values)}
    return {name: rows for name, rows in members.items() if len(rows)}
