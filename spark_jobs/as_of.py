"""The point-in-time join by one pass over time, with the answers of Feast's historical retrieval.

Feast's stores join a label with *every* earlier row of its key and then keep the newest: work and memory grow with the
square of a popular item's clicks. Here labels and history are read in order of time, side by side, and only the newest
row of each key is carried along: both grow with the number of rows.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from feast import FeatureStore

Array = np.ndarray
CHUNK = 16_384  # labels' moments at a time: what is searched for them stays in the processor's cache


class AsOf:
    """A feature view's history, asked in order of time for what was known of some keys at some moments.

    It keeps in memory the newest row of each key, and the rows of the period that is asked for.

    Args:
        files: The history's Parquet files.
        key: The join key's column · features: the columns to answer with.
    """

    def __init__(
        self, files: list[str], key: str, features: list[str], time: str = "event_timestamp",
        created: str = "created_timestamp",
    ):  # fmt: skip
        self.key, self.features, self.time, self.created = key, features, time, created
        self.history = ds.dataset(files, format="parquet")
        self.known: pa.Table | None = None
        self.until: int | None = None  # µs, up to which history has been read

    @classmethod
    def of(cls, store: FeatureStore, view: str, features: list[str]) -> "AsOf":
        """The history that a registered view's batch source names."""
        registered = store.get_feature_view(view)
        source = registered.batch_source
        files = sorted(str(file) for file in Path("/").glob(source.path.lstrip("/")))
        return cls(files, registered.join_keys[0], features, source.timestamp_field, source.created_timestamp_column)

    def _read(self, until: int) -> pa.Table:
        """The newest known row of each key, and after these the rows up to ``until`` in order of time."""
        stamp = pa.timestamp("us", tz="UTC")
        new = pc.field(self.time) <= pa.scalar(until, stamp)
        if self.until is not None:
            new &= pc.field(self.time) > pa.scalar(self.until, stamp)
        rows = self.history.to_table([self.key, *self.features, self.time, self.created], filter=new)
        if pc.any(pc.greater(rows[self.created], rows[self.time])).as_py():
            raise RuntimeError(
                f"the history of {self.key} has rows that were created after their event time, which one pass over "
                "time cannot tell apart; set night.join to duckdb"
            )
        rows = rows.drop_columns([self.created]).sort_by(self.time)
        self.until = until
        return rows if self.known is None else pa.concat_tables([self.known, rows])

    def before(self, ids: pa.Array, moments: Array) -> dict[str, pa.Array]:
        """The features of ``ids`` at moments [R] (µs, ascending, and later than those of the call before).

        Args:
            ids: [R·W] keys, W at each moment.

        Returns:
            [R·W] values a feature, of the newest row whose time is not after the moment; null where there is none.
        """
        width = len(ids) // max(len(moments), 1)
        rows = self._read(int(moments[-1]))
        keys = pa.chunked_array([*rows[self.key].chunks, ids], pa.string()).combine_chunks().dictionary_encode()
        codes = keys.indices.to_numpy().astype(np.int64)
        held, asked = codes[: len(rows)], codes[len(rows) :].reshape(-1, width)
        times = rows[self.time].cast(pa.timestamp("us")).cast(pa.int64()).to_numpy()
        carried = 0 if self.known is None else len(self.known)
        # Rows that may be known at each moment: those carried along, then the new ones up to it.
        upto = carried + np.searchsorted(times[carried:], moments, side="right")
        newest = np.full(len(keys.dictionary), -1, np.int64)
        newest[held[:carried]] = np.arange(carried)
        found = np.empty(asked.shape, np.int64)
        size, start = len(rows) + 1, carried
        for first in range(0, len(moments), CHUNK):
            chunk = slice(first, first + CHUNK)
            stop = upto[chunk][-1]
            place = np.sort(held[start:stop] * size + np.arange(start, stop))  # by key, then time
            wanted = asked[chunk]
            at = np.searchsorted(place, wanted * size + upto[chunk, None]) - 1
            key, row = np.divmod(place[at], size) if len(place) else (np.full(at.shape, -1), at)
            found[chunk] = np.where((at >= 0) & (key == wanted), row, newest[wanted])
            newest[held[start:stop]] = np.arange(start, stop)  # the last assignment to a key stays
            start = stop
        self.known = rows.take(newest[newest >= 0])
        flat = found.ravel()
        index = pa.array(flat, mask=flat < 0)
        return {name: rows[name].combine_chunks().take(index) for name in self.features}
