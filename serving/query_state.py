"""What is known of some queries, as arrays: the online store first, the bundle's state at its cut second."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from model.bundle import Bundle
from model.features import Inputs, Profile, dense, encode
from model.folds import gap_of
from model.recent_items import embedding_rows, to_lists
from serving.corpus import Corpus
from serving.features import Columns

Array = np.ndarray


@dataclass(frozen=True)
class QueryStates:
    """N queries. rows: [N] of the bundle's query table, −1 for one that it has not · source: where a came from ·
    clicks, last_click, folded: [N] · counters: [N, H] · a: [N, A] · recent: [N, L] rows of the tower's embedding of
    recent items, newest first · seen: for each, rows of the corpus, newest last.
    """

    rows: Array
    source: list[str]
    profile: Profile
    clicks: Array
    last_click: Array
    counters: Array
    folded: Array
    a: Array
    recent: Array
    seen: list[Array]

    @property
    def nothing_known(self) -> Array:
        """[N]: neither a profile nor a click; a tower would answer from its biases alone."""
        return np.array([source == "none" for source in self.source])


class QueryTable:
    """The bundle's side of queries: finds rows, encodes profiles, fills the gaps that the store leaves."""

    def __init__(self, bundle: Bundle):
        self.bundle = bundle
        self.ids = bundle.queries.ids.copy()
        spec = bundle.manifest.query
        self._fields = [f.name for f in spec.categories] + [f.name for f in spec.numbers] + list(spec.times)
        self._encoded: dict[tuple, tuple[Array, Array, Array]] = {}  # by value, so it cannot go stale

    def row(self, id_: str) -> int | None:
        return row if (row := self.ids.row(id_)) >= 0 else None

    def forget(self, ids: Iterable[str]) -> None:
        """Know nothing of some queries any more."""
        self.ids.forget(ids)

    def states(self, ids: list[str], columns: Columns | None, corpus: Corpus) -> QueryStates:
        """Join what the store returned (None: it is down) with the bundle's state."""
        table, spec = self.bundle.queries, self.bundle.manifest.query
        size = len(ids)
        rows = self.ids.rows(ids)
        clicks, last_click, folded = (np.zeros(size, np.int64) for _ in range(3))
        counters = np.zeros((size, len(spec.half_lives_ms)), np.float32)
        a = np.zeros((size, *table.a.shape[1:]), np.float32)
        codes = np.zeros((size, spec.slots), np.int32)
        numbers = np.zeros((size, len(spec.numbers)), np.float32)
        times = np.zeros((size, len(spec.times)), np.int64)
        places = self.bundle.manifest.config.history
        latest = np.full((size, places), -1, np.int64)
        source, seen = [], []
        online = _Row(columns)
        for k, row in enumerate(rows.tolist()):
            known_profile = False
            if online.get("query_profile__known", k):
                codes[k], numbers[k], times[k] = self._encode(
                    [online.get(f"query_profile__{name}", k) for name in self._fields]
                )
                known_profile = True
            elif row >= 0:
                codes[k], numbers[k], times[k] = table.codes[row], table.numbers[row], table.times[row]
            if online.get("query_activity__clicks", k) is not None:
                clicks[k] = online.get("query_activity__clicks", k)
                last_click[k] = online.get("query_activity__last_click", k) or 0
                stored = online.get("query_activity__counters", k)
                if stored is not None and len(stored) == counters.shape[1]:
                    counters[k] = stored
            elif row >= 0:
                clicks[k], last_click[k], counters[k] = table.clicks[row], table.last_click[row], table.counters[row]
            vector = online.get("query_augmented__a", k)
            if (
                vector is not None
                and online.get("query_augmented__bundle", k) == self.bundle.version
                and len(vector) == a[k].size
            ):
                a[k] = np.asarray(vector, np.float32).reshape(a[k].shape)
                folded[k] = online.get("query_augmented__folded", k) or 0
                source.append("stream")
            elif row >= 0:  # never a vector of another bundle: the spaces are not comparable
                a[k], folded[k] = table.a[row], table.update_count[row]
                source.append("bundle")
            else:
                source.append("profile" if known_profile else "none")
            history = online.get("query_history__history", k)
            if history:
                seen.append(corpus.rows(history))
                newest = [corpus.row(id_) for id_ in history[::-1][:places]]
                latest[k, : len(newest)] = [-1 if row is None else row for row in newest]
            else:
                ring = (
                    to_lists(table.recent_items[[row]], table.clicks[[row]])[0] if row >= 0 else np.empty(0, np.int64)
                )
                seen.append(ring.astype(np.int64))
                latest[k, : min(places, len(seen[k]))] = seen[k][::-1][:places]
        known = getattr(self.bundle.towers.query, "recent", None)  # embeddings of trained items, after the shared one
        recent = embedding_rows(latest, 0 if known is None else len(known) - 1)
        profile = Profile(codes, numbers, times)
        return QueryStates(rows, source, profile, clicks, last_click, counters, folded, a, recent, seen)

    def represent(self, states: QueryStates, as_of: Array) -> Array:
        """p_u [N, d] at the moments ``as_of`` [N] (ms)."""
        spec = self.bundle.manifest.query
        fast = dense(spec, states.profile, states.counters, states.clicks, states.last_click, as_of)
        recent = states.recent if states.recent.shape[1] else None
        gap = gap_of(self.bundle.manifest.config, states.last_click, as_of)
        inputs = Inputs(self.bundle.queries.embedding_rows(states.rows), states.profile.codes, fast, recent, gap)
        return self.bundle.towers.query(inputs, states.a)

    def _encode(self, values: list) -> tuple[Array, Array, Array]:
        key = tuple(tuple(value) if isinstance(value, list) else value for value in values)
        encoded = self._encoded.get(key)
        if encoded is None:
            columns = {name: [value] for name, value in zip(self._fields, values, strict=True)}
            profile = encode(self.bundle.manifest.query, columns, 1)
            encoded = (profile.codes[0], profile.numbers[0], profile.times[0])
            if len(self._encoded) >= 100_000:
                self._encoded.clear()
            self._encoded[key] = encoded
        return encoded


class _Row:
    """One value out of Feast's columns; None for all if the store is down."""

    def __init__(self, columns: Columns | None):
        self._columns = columns or {}

    def get(self, name: str, k: int) -> Any:
        column = self._columns.get(name)
        return None if column is None else column[k]
