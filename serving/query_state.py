"""What is known of some queries, as arrays: the online store first, the bundle's state at its cut second."""

from dataclasses import dataclass

import numpy as np

from serving.corpus import Corpus
from serving.features import Columns, Counts
from serving.query_tower import ArrayTower
from training.bundle import Bundle
from training.features import Inputs, Profile, dense, encode
from training.history import tower_rows

Array = np.ndarray


@dataclass(frozen=True)
class QueryStates:
    """N queries. rows: [N] of the bundle's query table, −1 for one that it has not · source: where a came from ·
    clicks, last_click, folded: [N] · counters: [N, H] · a: [N, M, d] · latest: [N, L] rows of the tower's embedding of
    latest items, newest first · seen: for each, rows of the corpus, newest last.
    """

    rows: Array
    source: list[str]
    profile: Profile
    clicks: Array
    last_click: Array
    counters: Array
    folded: Array
    a: Array
    latest: Array
    seen: list[Array]

    @property
    def nothing_known(self) -> Array:
        """[N]: neither a profile nor a click; a tower would answer from its biases alone."""
        return np.array([source == "none" for source in self.source])


class QueryTable:
    """The bundle's side of queries: finds rows, encodes profiles, fills the gaps that the store leaves."""

    def __init__(self, bundle: Bundle):
        self.bundle = bundle
        self.ids = bundle.queries.ids
        self._row = {id_: row for row, id_ in enumerate(self.ids)}
        spec = bundle.manifest.query
        self._fields = [f.name for f in spec.categories] + [f.name for f in spec.numbers] + list(spec.times)
        self._tower = ArrayTower(bundle.model.query_tower)
        self._encoded: dict[tuple, tuple[Array, Array, Array]] = {}  # by value, so it cannot go stale

    def row(self, id_: str) -> int | None:
        return self._row.get(id_)

    def clicks(self, id_: str) -> int:
        """Clicks ever at the bundle's cut."""
        row = self._row.get(id_)
        return 0 if row is None else int(self.bundle.queries.clicks[row])

    @property
    def history_length(self) -> int:
        """L: how many of its latest items a query keeps."""
        return self.bundle.queries.history.shape[1]

    def includes(self, id_: str, counts: Counts, clicks: int) -> bool:
        """Whether a query's activity counts ``clicks`` and its vector has them folded."""
        row = self._row.get(id_)
        before, folded = (0, 0) if row is None else (self.clicks(id_), int(self.bundle.queries.folded[row]))
        if (before if counts.clicks is None else counts.clicks) < clicks:
            return False
        # Since the cut every click that is counted is also folded.
        elsewhere = counts.bundle not in (
            None,
            self.bundle.version,
        )  # a vector that cannot be used need not be waited for
        return elsewhere or (counts.folded or 0) - folded >= clicks - before

    def states(self, ids: list[str], columns: Columns | None, corpus: Corpus) -> QueryStates:
        """Join what the store returned (None: it is down) with the bundle's state."""
        table, spec = self.bundle.queries, self.bundle.manifest.query
        size = len(ids)
        rows = np.array([self._row.get(id_, -1) for id_ in ids], np.int64)
        clicks, last_click, folded = (np.zeros(size, np.int64) for _ in range(3))
        counters = np.zeros((size, len(spec.decays_ms)), np.float32)
        a = np.zeros((size, *table.a.shape[1:]), np.float32)
        codes = np.zeros((size, spec.slots), np.int32)
        numbers = np.zeros((size, len(spec.numbers)), np.float32)
        times = np.zeros((size, len(spec.times)), np.int64)
        places = self.bundle.manifest.config.latest
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
                a[k], folded[k] = table.a[row], table.folded[row]
                source.append("bundle")
            else:
                source.append("profile" if known_profile else "none")
            history = online.get("query_history__history", k)
            if history:
                seen.append(corpus.rows(history))
                newest = [corpus.row(id_) for id_ in history[::-1][:places]]
                latest[k, : len(newest)] = [-1 if row is None else row for row in newest]
            else:
                seen.append(_ring(table.history[row], int(table.clicks[row])) if row >= 0 else np.empty(0, np.int64))
                newest = seen[k][::-1][:places]
                latest[k, : len(newest)] = newest
        latest = tower_rows(latest, len(self.bundle.items.ids))
        profile = Profile(codes, numbers, times)
        return QueryStates(rows, source, profile, clicks, last_click, counters, folded, a, latest, seen)

    def represent(self, states: QueryStates, as_of: Array) -> Array:
        """p_u [N, d] at the moments ``as_of`` [N] (ms)."""
        spec = self.bundle.manifest.query
        fast = dense(spec, states.profile, states.counters, states.clicks, states.last_click, as_of)
        inputs = Inputs(states.rows + 1, states.profile.codes.astype(np.int64), fast, states.latest)
        return self._tower.represent(inputs, states.a)

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

    def get(self, name: str, k: int):
        column = self._columns.get(name)
        return None if column is None else column[k]


def _ring(ring: Array, clicks: int) -> Array:
    """A history ring, oldest first: the k-th click is at k mod L."""
    length = len(ring)
    start = clicks % length if length and clicks > length else 0
    ordered = np.concatenate([ring[start:], ring[:start]]).astype(np.int64)
    return ordered[ordered >= 0]
