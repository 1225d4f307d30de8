"""Which id has which row, of very many ids: as arrays, since a list and a dict take ten times as much memory."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

Array = np.ndarray
_NOBODY = "dat-forgotten "
_AT_ONCE = 1 << 16  # of so many ids at a time strings are made
_FEW = 4  # ids that are found sooner one by one
_SHORT = 1 << 31  # bytes that 32-bit offsets reach


class Ids(Sequence[str]):
    """n distinct ids; the id of row r is ``ids[r]``.

    Those that it is made of are an Arrow column, which copies share. Those that come later are a list and a dict.
    """

    def __init__(self, ids: "Iterable[str] | pa.Array | pa.ChunkedArray" = ()):
        self._first = _Column(ids)
        self._later: list[str] = []
        self._row: dict[str, int] = {}
        """Of what has come later, and of rows whose id was forgotten."""
        self._forgotten: Array | None = None
        """[of the first ones] which were forgotten; None: none was."""

    def __len__(self) -> int:
        return len(self._first) + len(self._later)

    @overload
    def __getitem__(self, row: int) -> str: ...
    @overload
    def __getitem__(self, row: slice) -> list[str]: ...
    def __getitem__(self, row: int | slice) -> str | list[str]:
        if isinstance(row, slice):
            return self.take(np.arange(len(self))[row]).to_pylist()
        at = range(len(self))[row]
        if at >= len(self._first):
            return self._later[at - len(self._first)]
        return nobody(at) if self._forgotten is not None and self._forgotten[at] else self._first.names[at].as_py()

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), _AT_ONCE):
            yield from self.take(np.arange(start, min(start + _AT_ONCE, len(self)))).to_pylist()

    def __contains__(self, id_: object) -> bool:
        return isinstance(id_, str) and self.row(id_) >= 0

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Ids | list) and len(self) == len(other) and all(map(str.__eq__, self, other))

    def __arrow_array__(self, type: "pa.DataType | None" = None) -> "pa.Array | pa.ChunkedArray":
        kind = type or pa.string()
        if self._first.names.type == kind:
            return self.take(np.arange(len(self)))
        # Ids of more than 2 GiB do not fit one array of strings.
        parts = [self.take(np.arange(at, min(at + _AT_ONCE, len(self)))) for at in range(0, len(self), _AT_ONCE)]
        return pa.chunked_array([part.cast(kind) for part in parts], kind)

    def take(self, rows: Array) -> "pa.StringArray | pa.LargeStringArray":
        """The ids [N] of some rows."""
        first = rows < len(self._first)
        if first.all() and self._forgotten is None:
            return self._first.names.take(pa.array(rows))
        ids = np.empty(len(rows), object)
        ids[first] = self._first.names.take(pa.array(rows[first])).to_numpy(zero_copy_only=False)
        for k in np.flatnonzero(~first).tolist():
            ids[k] = self._later[rows[k] - len(self._first)]
        if self._forgotten is not None:
            for k in np.flatnonzero(first)[self._forgotten[rows[first]]].tolist():
                ids[k] = nobody(rows[k])
        return pa.array(ids, self._first.names.type)

    def row(self, id_: str) -> int:
        """The row of an id; −1 if it is not known."""
        return int(self.rows([id_])[0])

    def rows(self, ids: Iterable[str]) -> Array:
        """[N] rows of some ids; −1 for those that are not known."""
        ids = ids if isinstance(ids, list) else list(ids)
        rows = self._first.rows(ids)
        if self._forgotten is not None:
            rows[(rows >= 0) & self._forgotten[rows]] = -1
        for k in np.flatnonzero(rows < 0).tolist() if self._row else ():
            rows[k] = self._row.get(ids[k], -1)
        return rows

    def add(self, ids: Iterable[str]) -> Array:
        """[N] rows of some ids; those that are new get the next ones."""
        ids = ids if isinstance(ids, list) else list(ids)
        rows = self.rows(ids)
        for k in np.flatnonzero(rows < 0).tolist():
            row = self._row.setdefault(ids[k], len(self))
            if row == len(self):
                self._later.append(ids[k])
            rows[k] = row
        return rows

    def forget(self, ids: Iterable[str]) -> Array:
        """Take some ids off their rows, which are nobody's from then on. Returns the rows."""
        found = self.rows(dict.fromkeys(ids))
        found = found[found >= 0]
        for row in found.tolist():
            self._row.pop(self[row], None)
            if row >= len(self._first):
                self._later[row - len(self._first)] = nobody(row)
            else:
                if self._forgotten is None:
                    self._forgotten = np.zeros(len(self._first), bool)
                self._forgotten[row] = True
            self._row[nobody(row)] = row
        return found

    def copy(self) -> "Ids":
        """An independent one. Whoever has it looks ids up, so the index, which copies share, is made now: no request
        and no batch waits for it."""
        self._first.make_index()
        copied = Ids.__new__(Ids)
        copied._first, copied._later, copied._row = self._first, list(self._later), dict(self._row)
        copied._forgotten = None if self._forgotten is None else self._forgotten.copy()
        return copied


class _Column:
    """Ids that do not change. They are found by a part of their hash, among sorted ones, and then compared."""

    def __init__(self, ids: "Iterable[str] | pa.Array | pa.ChunkedArray"):
        if not isinstance(ids, pa.ChunkedArray):
            ids = pa.chunked_array([ids if isinstance(ids, pa.Array) else _as_arrow(ids)])
        kind = pa.large_string() if ids.nbytes >= _SHORT else pa.string()
        self.names: pa.StringArray | pa.LargeStringArray = ids.cast(kind).combine_chunks()
        self._index: tuple[Array, Array] | None = None

    def __len__(self) -> int:
        return len(self.names)

    def __getstate__(self) -> dict[str, Any]:
        return {"names": self.names, "_index": None}  # another process has other hashes

    def rows(self, ids: list[str]) -> Array:
        """[N] rows of some ids; −1 for those that are not known."""
        if len(ids) <= _FEW:
            return np.fromiter(map(self._row, ids), np.int64, len(ids))
        rows, asked = np.full(len(ids), -1, np.int64), np.fromiter(ids, object, len(ids))
        hashes, order = self.make_index()
        wanted = _hashes(ids)
        left = np.argsort(wanted)  # in their order, since neighbours are in the same part of the memory
        at = np.searchsorted(hashes, wanted[left])
        while True:  # once, but for hashes that several ids have
            inside = at < len(hashes)
            left, at = left[inside], at[inside]
            alike = hashes[at] == wanted[left]
            left, at = left[alike], at[alike]
            if not len(left):
                return rows
            found = order[at]
            same = self.names.take(pa.array(found)).to_numpy(zero_copy_only=False) == asked[left]
            rows[left[same]] = found[same]
            left, at = left[~same], at[~same] + 1

    def _row(self, id_: str) -> int:
        hashes, order = self.make_index()
        wanted = _hashes([id_])[0]
        at = int(hashes.searchsorted(wanted))
        while at < len(hashes) and hashes[at] == wanted:
            if self.names[int(order[at])].as_py() == id_:
                return int(order[at])
            at += 1
        return -1

    def make_index(self) -> tuple[Array, Array]:
        """The hashes in order [n], and the row of each; made once."""
        if self._index is not None:
            return self._index
        parts = (self.names[at : at + _AT_ONCE].to_pylist() for at in range(0, len(self), _AT_ONCE))
        hashes = np.concatenate([np.empty(0, np.uint32), *map(_hashes, parts)])
        order = np.argsort(hashes, kind="stable").astype(np.int32)
        self._index = hashes[order], order
        return self._index


def _as_arrow(ids: Iterable[str]) -> "pa.Array | pa.ChunkedArray":
    return pa.array(ids if isinstance(ids, list) else list(ids), pa.string())


def _hashes(ids: list[str]) -> Array:
    return np.fromiter(map(hash, ids), np.int64, len(ids)).astype(np.uint32)


def nobody(row: int) -> str:
    """The id of a row whose own was forgotten."""
    return f"{_NOBODY}{row}"


def is_nobody(id_: str) -> bool:
    return id_.startswith(_NOBODY)


def of_somebody(ids: "pa.Array") -> Array:
    """[N] which ids are not such ones."""
    return ~pc.starts_with(ids, _NOBODY).to_numpy(zero_copy_only=False)
