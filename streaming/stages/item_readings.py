"""What the query stage knows of items: what the memory reads of each, its embedding or its latest p_v."""

import numpy as np
import pyarrow as pa

from model.bundle import Bundle
from model.features import Inputs, dense
from streaming.stages.arrow import flat
from streaming.stages.profiles import Profiles

Array = np.ndarray


class ItemReadings:
    """Readings by item, from the bundle; grows by the items that training did not see.

    Of a memory that reads p_v (``moving``), ``item-vectors`` has the later ones.

    Args:
        bundle: The model and its items.
        profiles: Where the profiles of items come from that nobody has computed a vector of yet.
    """

    def __init__(self, bundle: Bundle, profiles: Profiles):
        self._bundle, self._profiles = bundle, profiles
        self._rows = {key: row for row, key in enumerate(bundle.items.ids)}
        self._ids = np.array(bundle.items.ids, object)
        self.moving = bundle.towers.reads_vectors
        self._readings = np.array(bundle.items.vectors) if self.moving else self._of_bundle()
        self._size = len(self._ids)

    @property
    def ids(self) -> Array:
        """[n] item ids (objects)."""
        return self._ids[: self._size]

    @property
    def readings(self) -> Array:
        """[n, X]."""
        return self._readings[: self._size]

    def rows(self, ids: list[str], as_of_ms: int) -> Array:
        """Rows [N] of some items. Of a new one only its profile is read, at ``as_of_ms``."""
        rows = np.fromiter((self._rows.get(key, -1) for key in ids), np.int64, len(ids))
        if len(rows) and rows.min() < 0:
            new = list(dict.fromkeys(key for key, row in zip(ids, rows.tolist(), strict=True) if row < 0))
            self._add(new, self._first(new, as_of_ms))
            rows = np.fromiter((self._rows[key] for key in ids), np.int64, len(ids))
        return rows

    def update(self, rows: pa.RecordBatch) -> None:
        """Take over ``ITEM_STATE`` rows, of a memory that reads p_v."""
        ids, vectors = rows["id"].to_pylist(), flat(rows["vector"], self._readings.shape[1])
        at = np.fromiter((self._rows.get(key, -1) for key in ids), np.int64, len(ids))
        known = at >= 0
        self._readings[at[known]] = vectors[known]
        if not known.all():
            new = np.flatnonzero(~known)
            self._add([ids[k] for k in new], vectors[new])

    def _add(self, ids: list[str], readings: Array) -> None:
        size = self._size + len(ids)
        if size > len(self._ids):
            room = max(size, len(self._ids) * 3 // 2) - len(self._ids)
            self._ids = np.concatenate([self._ids, np.full(room, None, object)])
            self._readings = np.concatenate([self._readings, np.zeros((room, self._readings.shape[1]), np.float32)])
        self._ids[self._size : size] = ids
        self._readings[self._size : size] = readings
        self._rows.update(zip(ids, range(self._size, size), strict=True))
        self._size = size

    def _first(self, ids: list[str], as_of_ms: int) -> Array:
        spec, config, n = self._bundle.manifest.item, self._bundle.manifest.config, len(ids)
        profile = self._profiles.fetch(ids) or self._profiles.unknown(n)
        none, moment = np.zeros(n, np.int64), np.full(n, as_of_ms, np.int64)
        fast = dense(spec, profile, np.zeros((n, len(spec.half_lives_ms)), np.float32), none, none, moment)
        augmented = np.zeros((n, config.item_state_dim), np.float32)
        return self._bundle.towers.read(Inputs(none, profile.codes, fast), augmented)

    def _of_bundle(self) -> Array:
        bundle, rows = self._bundle, np.arange(len(self._ids))
        inputs = bundle.items.inputs(bundle.manifest.item, rows, np.full(len(rows), bundle.manifest.cut_ms))
        return bundle.towers.read(inputs, bundle.items.a)
