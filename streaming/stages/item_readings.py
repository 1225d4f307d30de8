"""What the query stage knows of items: what the memory reads of each, its embedding or its latest p_v."""

import numpy as np
import pyarrow as pa

from model.arrays import writable
from model.bundle import Bundle
from model.features import Inputs, dense
from streaming.stages.arrow import flat
from streaming.stages.profiles import Profiles

Array = np.ndarray


class ItemReadings:
    """Readings by item, of the bundle and of items that training did not see.

    A reading does not move with the clicks, so those of the bundle's items are computed when they are asked for: no
    table of all of them takes memory. Of a memory that reads p_v (``moving``), ``item-vectors`` has the later ones.

    Args:
        bundle: The model and its items.
        profiles: Where the profiles of items come from that nobody has computed a vector of yet.
    """

    def __init__(self, bundle: Bundle, profiles: Profiles):
        self._bundle, self._profiles = bundle, profiles
        self.ids, self._size = bundle.items.ids.copy(), len(bundle.items)
        self.moving = bundle.towers.reads_vectors
        self._vectors = writable(bundle.items.vectors) if self.moving else None
        self._later = np.empty((0, self.read(np.empty(0, np.int64)).shape[1]), np.float32)

    def read(self, rows: Array) -> Array:
        """[N, X] what the memory reads of some items."""
        known = rows < self._size
        if known.all():
            return self._of_bundle(rows)
        readings = np.empty((len(rows), self._later.shape[1]), np.float32)
        readings[known], readings[~known] = self._of_bundle(rows[known]), self._later[rows[~known] - self._size]
        return readings

    def rows(self, ids: list[str], as_of_ms: int) -> Array:
        """Rows [N] of some items. Of a new one only its profile is read, at ``as_of_ms``."""
        rows = self.ids.rows(ids)
        if len(rows) and rows.min() < 0:
            new = list(dict.fromkeys(ids[k] for k in np.flatnonzero(rows < 0).tolist()))
            self._put(new, self._first(new, as_of_ms))
            rows = self.ids.rows(ids)
        return rows

    def update(self, rows: pa.RecordBatch) -> None:
        """Take over ``ITEM_STATE`` rows, of a memory that reads p_v."""
        self._put(rows["id"].to_pylist(), flat(rows["vector"], self._later.shape[1]))

    def _put(self, ids: list[str], readings: Array) -> None:
        rows = self.ids.add(ids)
        known, later = rows < self._size, len(self.ids) - self._size
        if later > len(self._later):
            room = max(later, len(self._later) * 3 // 2) - len(self._later)
            self._later = np.concatenate([self._later, np.empty((room, self._later.shape[1]), np.float32)])
        self._later[rows[~known] - self._size] = readings[~known]
        if self._vectors is not None:
            self._vectors[rows[known]] = readings[known]

    def _of_bundle(self, rows: Array) -> Array:
        if self._vectors is not None:
            return self._vectors[rows]
        items = self._bundle.items
        inputs = Inputs(items.embedding_rows(rows), items.codes[rows], np.zeros((len(rows), 0), np.float32))
        return self._bundle.towers.read(inputs, items.a[rows])

    def _first(self, ids: list[str], as_of_ms: int) -> Array:
        spec, config, n = self._bundle.manifest.item, self._bundle.manifest.config, len(ids)
        profile = self._profiles.fetch(ids) or self._profiles.unknown(n)
        none, moment = np.zeros(n, np.int64), np.full(n, as_of_ms, np.int64)
        fast = dense(spec, profile, np.zeros((n, len(spec.half_lives_ms)), np.float32), none, none, moment)
        augmented = np.zeros((n, config.item_state_dim), np.float32)
        return self._bundle.towers.read(Inputs(none, profile.codes, fast), augmented)
