"""The items of one bundle, as they are now: their ids, vectors, activity, features, and which of them may be shown."""

import threading
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from enum import IntFlag
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from model.bundle import Bundle
from model.features import Inputs, dense, encode
from model.settings.serving import ServingConfig
from serving.attributes import Attributes, categories_of
from serving.filters import Where
from serving.index.live_index import LiveIndex
from serving.index.subset import Subset
from serving.popularity import COLD, Popularity

Array = np.ndarray


class Held(IntFlag):
    """Why an item is not shown."""

    UNKNOWN = 1  # no catalogue knows it, and too few queries have clicked it
    HIDDEN = 2
    UNAVAILABLE = 4
    EXPIRED = 8
    DELETED = 16


class Corpus:
    """Item table and live index of one bundle. Writers take turns; any number of threads read.

    Row r is item ``ids[r]``: the bundle's items first, in its order, then items in the order in which they came. An id
    is appended before its vector becomes findable, so a reader can always name what it found.
    """

    def __init__(self, bundle: Bundle, config: ServingConfig | None = None):
        config = config or ServingConfig()
        items = bundle.items
        self.version = bundle.version
        self._bundle = bundle
        self.ids: list[str] = list(items.ids)
        self._row = {id_: row for row, id_ in enumerate(self.ids)}
        self._serve_unknown, self._vouching = config.unknown_items == "serve", config.vouching_queries
        half_lives = bundle.manifest.item.half_lives_ms
        # Neither the noisiest nor the slowest counter says what is popular lately.
        self._trailing = len(half_lives) // 2
        self._half_life = half_lives[self._trailing] if half_lives else 1
        self._counters = len(half_lives)
        self._activity = np.stack([items.clicks, items.last_click], axis=1).astype(np.int64)  # [n, 2]
        self._held = np.zeros(len(self.ids), np.uint8)
        self._features: dict[int, Mapping[str, Any]] = {}  # of rows that were described after the bundle
        self._titles: dict[int, str | None] = {}
        self._write = threading.Lock()
        self.newest_event = int(max(bundle.manifest.cut_ms, self._activity[:, 1].max(initial=0)))
        self.updates = 0
        self.newcomers: deque[str] = deque()
        """Items that came after the bundle, and have not been looked up in the catalogue."""
        self._base, self.attributes = features_at_cut(bundle)
        self.category_field = config.category_field or next(iter(self._base), None)
        heat = self._heat(np.asarray(items.counters), self._activity[:, 0], self._activity[:, 1])
        self._hot = heat.copy()
        self.popularity = Popularity(heat)
        self.index = LiveIndex(items.vectors, config.index, bundle.queries.vectors)

    def __len__(self) -> int:
        """Items that may be shown and have a vector."""
        return len(self.index)

    def row(self, id_: str) -> int | None:
        return self._row.get(id_)

    def rows(self, ids: Iterable[str]) -> Array:
        """Rows of the ids that are known, in their order."""
        known = (self._row.get(id_) for id_ in ids)
        return np.fromiter((row for row in known if row is not None), np.int64)

    def apply(self, state: pa.RecordBatch) -> None:
        """Take over rows of ``ITEM_STATE``. Values are absolute, so that applying a batch again changes nothing."""
        if not len(state):
            return
        with self._write:
            first = len(self.ids)
            rows = self._add(state["id"].to_pylist())
            clicks, last_click = (state[name].to_numpy() for name in ("clicks", "last_click"))
            counters = state["counters"].flatten().to_numpy(zero_copy_only=False).reshape(len(rows), -1)
            self._activity[rows] = np.stack([clicks, last_click], axis=1)
            self._hot[rows] = self._heat(counters, clicks, last_click)
            if "queries" in state.schema.names:
                vouched = pc.list_value_length(state["queries"]).to_numpy(zero_copy_only=False) >= self._vouching
                self._hold(rows[vouched], Held.UNKNOWN, False)
            vectors = state["vector"].flatten().to_numpy(zero_copy_only=False)
            self.index.upsert(rows, vectors.reshape(len(rows), self.index.dimension))
            self._warm(rows)
            self.newest_event = max(self.newest_event, int(last_click.max(initial=0)))
            self.updates += len(rows)
            self.newcomers.extend(self.ids[first:])

    def describe(self, items: Mapping[str, tuple[Mapping[str, Any], str | None]]) -> None:
        """File items that a catalogue knows: from now on they may be shown, filters see their features, and they are
        found even before their first click.

        Args:
            items: id → its features and its title.
        """
        with self._write:
            rows = self._add(list(items))
            for row, (features, title) in zip(rows.tolist(), items.values(), strict=True):
                self.attributes.put(row, self.features_of(row), features)
                self._features[row], self._titles[row] = features, title
            self._hold(rows, Held.UNKNOWN, False)
            new = ~self.index.knows(rows)
            if new.any():
                columns = [features for (features, _), is_new in zip(items.values(), new, strict=True) if is_new]
                self.index.upsert(rows[new], self._first_vectors(columns))
            self._hot[rows] = np.maximum(self._hot[rows], COLD)
            self._warm(rows)

    def hold(self, reasons: Mapping[str, Held]) -> None:
        """Set all reasons for which operators do not want items shown; 0: none. Unknown ids are remembered."""
        with self._write:
            rows = self._add(list(reasons))
            said = np.fromiter(reasons.values(), np.uint8, len(reasons))
            self._show_or_hide(rows, self._held[rows] & np.uint8(Held.UNKNOWN) | said)
            self._warm(rows)

    def unknown(self) -> list[str]:
        """Items that are held since no catalogue knows them."""
        return [self.ids[row] for row in np.flatnonzero(self._held[: len(self.ids)] & Held.UNKNOWN).tolist()]

    @property
    def held_count(self) -> int:
        """Items that are not shown, for whatever reason."""
        return int(np.count_nonzero(self._held[: len(self.ids)]))

    def held(self, row: int) -> Held:
        return Held(int(self._held[row]))

    def subset(self, where: Where) -> Subset:
        """The rows that a filter leaves.

        Raises:
            UnknownName: it names a field or a value that no item has.
        """
        return self.attributes.subset(where)

    def categories(self) -> dict[str, int]:
        """Category → how many items it has."""
        return {} if self.category_field is None else self.attributes.counts(self.category_field)

    def category_of(self, row: int) -> tuple[str, ...]:
        return () if self.category_field is None else categories_of(self.features_of(row).get(self.category_field))

    def features_of(self, row: int) -> Mapping[str, Any]:
        """The categories of a row, and if it was described after the bundle, all that was said of it."""
        if (later := self._features.get(row)) is not None:
            return later
        return {name: values for name, column in self._base.items() if (values := column(row))}

    def titles(self, ids: Sequence[str]) -> dict[str, str | None]:
        """What people call some items, as far as it has been read; None: they have no title."""
        rows = {id_: self._row.get(id_, -1) for id_ in ids}
        return {id_: self._titles[row] for id_, row in rows.items() if row in self._titles}

    def name(self, titles: Mapping[str, str | None]) -> None:
        """Keep titles that were read."""
        self._titles.update((row, title) for id_, title in titles.items() if (row := self._row.get(id_)) is not None)

    def activity(self, row: int) -> tuple[int, int]:
        """Clicks ever and the time of the last one (ms; 0: never)."""
        clicks, last_click = self._activity[row].tolist()
        return clicks, last_click

    def _add(self, ids: Sequence[str]) -> Array:
        """[N] rows of some ids, new ones included."""
        new = [id_ for id_ in dict.fromkeys(ids) if id_ not in self._row]
        if new:
            size = len(self.ids) + len(new)
            if size > len(self._held):  # each column is replaced whole: a reader has the old one or the new one
                room = size * 9 // 8 + 1_024 - len(self._held)
                self._activity = np.concatenate([self._activity, np.zeros((room, 2), np.int64)])
                self._held = np.concatenate([self._held, np.zeros(room, np.uint8)])
                self._hot = np.concatenate([self._hot, np.full(room, -np.inf)])
            if not self._serve_unknown:
                self._hold(np.arange(len(self.ids), size), Held.UNKNOWN, True)
            for id_ in new:
                self.ids.append(id_)
                self._row[id_] = len(self.ids) - 1
            self.attributes.grow(size)
        return np.fromiter((self._row[id_] for id_ in ids), np.int64, len(ids))

    def _first_vectors(self, features: Sequence[Mapping[str, Any]]) -> Array:
        """[N, d] what the item tower says of items of which only the catalogue knows, as of now."""
        spec, config, n = self._bundle.manifest.item, self._bundle.manifest.config, len(features)
        names = [*(f.name for f in spec.categories), *(f.name for f in spec.numbers), *spec.times]
        profile = encode(spec, {name: [one.get(name) for one in features] for name in names}, n)
        none, now = np.zeros(n, np.int64), np.full(n, self.newest_event, np.int64)
        fast = dense(spec, profile, np.zeros((n, len(spec.half_lives_ms)), np.float32), none, none, now)
        augmented = np.zeros((n, config.item_state_dim), np.float32)
        return self._bundle.towers.item(Inputs(none, profile.codes, fast), augmented)

    def _hold(self, rows: Array, reason: Held, held: bool) -> None:
        before = self._held[rows]
        self._show_or_hide(rows, before | reason if held else before & ~np.uint8(reason))

    def _show_or_hide(self, rows: Array, after: Array) -> None:
        before, self._held[rows] = self._held[rows], after
        hidden, shown = rows[(before == 0) & (after > 0)], rows[(before > 0) & (after == 0)]
        if len(hidden):
            self.index.hide(hidden)
        if len(shown):
            self.index.show(shown)

    def _warm(self, rows: Array) -> None:
        """Take over into what is popular how hot rows are, and whether they may be shown."""
        rows = np.unique(rows)
        self.popularity.put(rows, np.where(self._held[rows] == 0, self._hot[rows], -np.inf))

    def _heat(self, counters: Array, clicks: Array, last_click: Array) -> Array:
        """[N] what rows are ordered by: all counters of one half-life decay alike, so that the order never changes."""
        with np.errstate(divide="ignore"):
            count = counters[:, self._trailing].astype(np.float64) if self._counters else clicks
            return np.where(count > 0, np.log2(count) + last_click / self._half_life, COLD)


class _Codes:
    """Categories of the bundle's rows by one field."""

    def __init__(self, values: list[str], codes: Array):
        """codes: [n, slots] places in ``values``; anything outside them is no value."""
        self.values, self.codes = values, codes

    def __call__(self, row: int) -> tuple[str, ...]:
        if row >= len(self.codes):
            return ()
        return tuple(self.values[code] for code in self.codes[row].tolist() if 0 <= code < len(self.values))

    def members(self) -> dict[str, Array]:
        """Value → ascending rows."""
        rows, slots = np.nonzero((self.codes >= 0) & (self.codes < len(self.values)))
        values = self.codes[rows, slots]
        order = np.argsort(values, kind="stable")
        bounds = np.searchsorted(values[order], np.arange(len(self.values) + 1))
        members = {name: rows[order[bounds[k] : bounds[k + 1]]] for k, name in enumerate(self.values)}
        return {name: rows for name, rows in members.items() if len(rows)}


def features_at_cut(bundle: Bundle) -> tuple[dict[str, _Codes], Attributes]:
    """What the bundle says of its items: each category field's values, and the columns that filters read."""
    items, at, base = bundle.items, 0, {}
    for field in bundle.manifest.item.categories:
        codes = np.asarray(items.codes[:, at : at + field.slots]).astype(np.int64) - field.offset - 1
        base[field.name] = _Codes(field.values, codes)
        at += field.slots
    numbers: dict[str, Array] = {}
    for k, number in enumerate(bundle.manifest.item.numbers):
        numbers[number.name] = np.asarray(items.numbers[:, k], np.float64) * number.std + number.mean
    for k, name in enumerate(bundle.manifest.item.times):
        time = np.asarray(items.times[:, k])
        numbers[name] = np.where(time > 0, time, np.nan)
    return base, Attributes(len(items.ids), {name: column.members() for name, column in base.items()}, numbers)
