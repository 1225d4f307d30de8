"""What the query stage knows of items: the latest p_v of each, which is what a_u moves towards."""

import numpy as np
import pyarrow as pa

from streaming.profiles import Profiles
from streaming.state import flat
from training.bundle import Bundle
from training.dat import represent
from training.features import Inputs, dense, share_columns

Array = np.ndarray


class ItemVectors:
    """Vectors by item, from the bundle, then from ``item-vectors``; grows by the items that training did not see.

    Args:
        bundle: The model and its items.
        profiles: Where the profiles of items come from that nobody has computed a vector of yet.
    """

    def __init__(self, bundle: Bundle, profiles: Profiles):
        self._bundle, self._profiles = bundle, profiles
        self._rows = {key: row for row, key in enumerate(bundle.items.ids)}
        self._ids = np.array(bundle.items.ids, object)
        self._vectors = np.array(bundle.items.vectors)
        self._size = len(self._ids)
        self._shares = bundle.manifest.query.shares
        # Columns of the items' categories; −1: not looked up yet.
        self._categories = np.full(self._size, -1, np.int16)
        if self._shares:
            self._categories[:] = share_columns(self._shares, bundle.manifest.item, bundle.items.profile)

    @property
    def ids(self) -> Array:
        """[n] item ids (objects)."""
        return self._ids[: self._size]

    @property
    def vectors(self) -> Array:
        """[n, d] the latest p_v."""
        return self._vectors[: self._size]

    def rows(self, ids: list[str], as_of_ms: int) -> Array:
        """Rows [N] of some items. A new one gets the item tower's output for its profile alone, at ``as_of_ms``."""
        rows = np.fromiter((self._rows.get(key, -1) for key in ids), np.int64, len(ids))
        if len(rows) and rows.min() < 0:
            new = list(dict.fromkeys(key for key, row in zip(ids, rows.tolist(), strict=True) if row < 0))
            self._add(new, self._first_vectors(new, as_of_ms))
            rows = np.fromiter((self._rows[key] for key in ids), np.int64, len(ids))
        return rows

    def categories(self, rows: Array) -> Array | None:
        """[N] which column of the queries' category shares items count in; None if the query tower reads none.

        While the store is away, items that are new to the bundle count as others.
        """
        if self._shares is None:
            return None
        missing = np.unique(rows[self._categories[rows] < 0])
        if len(missing) and (profile := self._profiles.fetch(self._ids[missing].tolist())):
            self._categories[missing] = share_columns(self._shares, self._bundle.manifest.item, profile)
        columns = self._categories[rows].astype(np.int64)
        return np.where(columns < 0, self._shares.width - 1, columns)

    def update(self, rows: pa.RecordBatch) -> None:
        """Take over ``ITEM_STATE`` rows."""
        ids, vectors = rows["id"].to_pylist(), flat(rows["vector"], self._vectors.shape[1])
        at = np.fromiter((self._rows.get(key, -1) for key in ids), np.int64, len(ids))
        known = at >= 0
        self._vectors[at[known]] = vectors[known]
        if not known.all():
            new = np.flatnonzero(~known)
            self._add([ids[k] for k in new], vectors[new])

    def _add(self, ids: list[str], vectors: Array) -> None:
        size = self._size + len(ids)
        if size > len(self._ids):
            room = max(size, len(self._ids) * 3 // 2) - len(self._ids)
            self._ids = np.concatenate([self._ids, np.full(room, None, object)])
            self._vectors = np.concatenate([self._vectors, np.zeros((room, self._vectors.shape[1]), np.float32)])
            self._categories = np.concatenate([self._categories, np.full(room, -1, np.int16)])
        self._ids[self._size : size] = ids
        self._vectors[self._size : size] = vectors
        self._rows.update(zip(ids, range(self._size, size), strict=True))
        self._size = size

    def _first_vectors(self, ids: list[str], as_of_ms: int) -> Array:
        spec, config, n = self._bundle.manifest.item, self._bundle.manifest.config, len(ids)
        profile = self._profiles.fetch(ids) or self._profiles.unknown(n)
        none, moment = np.zeros(n, np.int64), np.full(n, as_of_ms, np.int64)
        fast = dense(spec, profile, np.zeros((n, len(spec.half_lives_ms)), np.float32), none, none, moment)
        augmented = np.zeros((n, len(config.memories_of("item")), config.tower.output_dim), np.float32)
        return represent(self._bundle.model.item_tower, Inputs(none, profile.codes, fast), augmented)
