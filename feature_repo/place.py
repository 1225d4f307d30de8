"""A place of what a home shares: a folder or a file on a disk, or one in an object store.

Code that takes a :class:`Place` takes both. On a disk it is a :class:`pathlib.Path`.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path, PurePosixPath
from tempfile import NamedTemporaryFile
from typing import Any, NamedTuple, Protocol

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow.fs import FileInfo, FileType

from feature_repo.home_url import as_url, is_url
from feature_repo.object_store import ObjectStore, StoreAway


class Place(Protocol):
    """What :class:`pathlib.Path` and :class:`UrlPath` have in common."""

    @property
    def name(self) -> str: ...
    @property
    def parent(self) -> "Place": ...
    def __truediv__(self, name: str, /) -> "Place": ...
    def __lt__(self, other: Any, /) -> bool: ...
    def absolute(self) -> "Place": ...
    def exists(self) -> bool: ...
    def is_file(self) -> bool: ...
    def is_dir(self) -> bool: ...
    def stat(self) -> Any: ...
    def mkdir(self, *, parents: bool = ..., exist_ok: bool = ...) -> None: ...
    def glob(self, pattern: str) -> "Iterable[Place]": ...
    def rglob(self, pattern: str) -> "Iterable[Place]": ...
    def read_text(self) -> str: ...
    def read_bytes(self) -> bytes: ...
    def write_bytes(self, data: bytes, /) -> int: ...
    def unlink(self, missing_ok: bool = ...) -> None: ...


class _Stat(NamedTuple):
    st_size: int
    st_mtime_ns: int


class UrlPath:
    """An object, or the folder that objects have in their names. Folders need not be made, and an object that is read
    is whole: see :class:`ObjectStore`, also for what is raised.

    Args:
        name: Relative to the store's URL; empty: the URL itself.
        info: What the store has said of it already.
    """

    def __init__(self, store: ObjectStore, name: str = "", info: FileInfo | None = None):
        self.store, self._name, self._info = store, name, info

    @classmethod
    def of(cls, url: str) -> "UrlPath":
        return cls(ObjectStore(url, attempts=8))

    @property
    def name(self) -> str:
        return PurePosixPath(self._name).name

    @property
    def parent(self) -> "UrlPath":
        above = str(PurePosixPath(self._name).parent)
        return UrlPath(self.store, "" if above == "." else above)

    def __truediv__(self, name: str) -> "UrlPath":
        return UrlPath(self.store, str(PurePosixPath(self._name) / name))

    def __str__(self) -> str:
        """As Spark, too, reads it."""
        return f"{self.store.url}/{self._name}" if self._name else self.store.url

    __repr__ = __str__

    def __lt__(self, other: "UrlPath") -> bool:
        return PurePosixPath(self._name) < PurePosixPath(other._name)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, UrlPath) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))

    def absolute(self) -> "UrlPath":
        return self

    def exists(self) -> bool:
        return self._said.type != FileType.NotFound

    def is_file(self) -> bool:
        return self._said.type == FileType.File

    def is_dir(self) -> bool:
        return self._said.type == FileType.Directory

    def stat(self) -> _Stat:
        return _Stat(self._said.size, self._said.mtime_ns)

    @property
    def _said(self) -> FileInfo:
        return self._info or self.store.ask(lambda at: at.get_file_info(self._name))

    def mkdir(self, parents: bool = False, exist_ok: bool = False) -> None:
        """An object store has no folders without objects."""

    def glob(self, pattern: str) -> "Iterator[UrlPath]":
        """As of a path, in one listing; ``**`` is not known."""
        wanted = PurePosixPath(pattern).parts
        for found in self._under(recursive=len(wanted) > 1):
            parts = PurePosixPath(found._name).parts[len(self._parts) :]
            if len(parts) == len(wanted) and all(map(fnmatchcase, parts, wanted)):
                yield found

    def rglob(self, pattern: str) -> "Iterator[UrlPath]":
        """As of a path, where the pattern is one of names."""
        yield from (found for found in self._under(recursive=True) if fnmatchcase(found.name, pattern))

    def _under(self, recursive: bool) -> list["UrlPath"]:
        """What is under it, in order; a store need not list folders."""
        found: dict[str, UrlPath] = {}
        for info in self.store.under(self._name, recursive):
            found[info.path] = UrlPath(self.store, info.path, info)
            for above in PurePosixPath(info.path).parents[: -len(self._parts) - 1]:
                found.setdefault(str(above), UrlPath(self.store, str(above), FileInfo(str(above), FileType.Directory)))
        return sorted(found.values())

    @cached_property
    def _parts(self) -> tuple[str, ...]:
        return PurePosixPath(self._name).parts

    def read_bytes(self) -> bytes:
        found = self.store.read(self._name)
        if found is None:
            raise FileNotFoundError(2, "there is no such object", str(self))
        return found

    def read_text(self) -> str:
        return self.read_bytes().decode()

    def write_bytes(self, data: bytes) -> int:
        self.store.write(self._name, data)
        return len(data)

    def unlink(self, missing_ok: bool = False) -> None:
        self.store.delete(self._name)

    def delete_folder(self) -> None:
        """Delete all that is under it, in no order."""
        self.store.delete_folder(self._name)

    def download(self, file: Path) -> None:
        self.store.download(self._name, file)

    def upload(self, file: Path) -> None:
        self.store.upload(file, self._name)

    def arrow(self) -> dict[str, Any]:
        """How Arrow's readers and writers of Parquet are told of it."""
        return {"filesystem": self.store.ask(lambda at: at)}

    @property
    def arrow_name(self) -> str:
        return self._name


def shared_place(home: str | Path) -> Place:
    """Where a home keeps what its machines share."""
    return UrlPath.of(as_url(str(home))) if is_url(str(home)) else Path(home).absolute()


def read_parquet(file: Place, columns: list[str] | None = None) -> pa.Table:
    with _reading(file) as told:
        return pq.read_table(columns=columns, partitioning=None, **told)


def open_parquet(file: Place) -> pq.ParquetFile:
    with _reading(file) as told:
        return pq.ParquetFile(**told)


def parquet_metadata(file: Place) -> pq.FileMetaData:
    with open_parquet(file) as opened:
        return opened.metadata


def write_parquet(rows: pa.Table, file: Place, row_group_size: int | None = None) -> None:
    if isinstance(file, UrlPath):
        with NamedTemporaryFile(suffix=".parquet") as written:
            pq.write_table(rows, written.name, row_group_size=row_group_size)
            file.upload(Path(written.name))
    else:
        pq.write_table(rows, str(file), row_group_size=row_group_size)


@contextmanager
def _reading(file: Place) -> Iterator[dict[str, Any]]:
    """How Arrow's readers are told of a file.

    Raises:
        StoreAway: its store does not do what it was asked; a file that is damaged is another error.
    """
    if not isinstance(file, UrlPath):
        yield {"source": str(file)}
        return
    try:
        yield {"source": file.arrow_name, **file.arrow()}
    except FileNotFoundError:
        raise
    except OSError as error:
        raise StoreAway.of(str(file), str(error).splitlines()[0]) from error
