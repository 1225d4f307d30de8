"""Tables: folders of files that are there whole or not at all, on a disk and in an object store.

On a disk a table takes its place by a rename. An object store has none. There its files lie under a name that was
never used, ``<table>/written=000002-5f0c…/``; ``<table>/written=000002-5f0c….done``, an empty object that is written
last, makes them what the table is. Readers ask for the newest one that is done. What others there are, older ones and
those of writers that were killed, goes with the table's next write.
"""

import shutil
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

import pyarrow.dataset as arrow

from feature_repo.atomic import atomic_write
from feature_repo.place import Place, UrlPath

_WRITTEN, _DONE = "written=", ".done"


@contextmanager
def write_table(table: Place) -> Iterator[Place]:
    """A folder to write files in, which is not there yet. They then take the table's place; an error leaves what it
    was. Two writers at once do not mix their files.
    """
    if isinstance(table, Path):
        with atomic_write(table) as staging:
            yield staging
        return
    assert isinstance(table, UrlPath)
    before = list(table.glob(f"{_WRITTEN}*"))
    number = 1 + max((int(one.name[len(_WRITTEN) :][:6]) for one in before), default=0)
    fresh = table / f"{_WRITTEN}{number:06d}-{uuid.uuid4().hex[:12]}"
    yield fresh
    (table / f"{fresh.name}{_DONE}").write_bytes(b"")
    _delete(before)


def write_text(file: Place, text: str) -> None:
    """Write a small file in one step."""
    if isinstance(file, Path):
        with atomic_write(file) as staging:
            staging.write_text(text)
    else:
        file.write_bytes(text.encode())


def whole(table: Place) -> Place:
    """The folder with a table's files; one that is not there, if there is no such table."""
    if not isinstance(table, UrlPath):
        return table
    done = [one.name for one in table.glob(f"{_WRITTEN}*{_DONE}")]
    return table / (max(done).removesuffix(_DONE) if done else f"{_WRITTEN}none")


def table_of(folder: Place) -> Place:
    """The table whose files are in a folder."""
    return folder.parent if folder.name.startswith(_WRITTEN) else folder


def files_of_tables(folder: Place, pattern: str) -> list[Place]:
    """Files of the tables under a folder, in order, by one listing.

    Args:
        pattern: As of :meth:`pathlib.Path.glob`, without what an object store's names have more.
    """
    if not isinstance(folder, UrlPath):
        return sorted(folder.glob(pattern))
    wanted, depth = PurePosixPath(pattern).parts, len(PurePosixPath(folder.arrow_name).parts)
    done: dict[str, str] = {}
    listed = [one for one in folder.rglob("*") if one.is_file()]
    for one in listed:
        if one.name.endswith(_DONE):
            table = one.parent.arrow_name
            done[table] = max(done.get(table, ""), one.name.removesuffix(_DONE))
    found: list[Place] = []
    for one in listed:
        parts = PurePosixPath(one.arrow_name).parts
        at = next((n for n, part in enumerate(parts[:-1]) if part.startswith(_WRITTEN)), None)
        if one.name.startswith(_WRITTEN) or (at is not None and done.get("/".join(parts[:at])) != parts[at]):
            continue
        own = tuple(part for n, part in enumerate(parts) if n != at)[depth:]
        if len(own) == len(wanted) and all(map(fnmatchcase, own, wanted)):
            found.append(one)
    return found


def delete_table(folder: Place) -> None:
    """Delete a table, or another folder, if it is there; of a table nothing is seen from the first request on."""
    if isinstance(folder, Path):
        if folder.exists():
            shutil.rmtree(folder)
    elif isinstance(folder, UrlPath):
        _delete(list(folder.glob(f"{_WRITTEN}*")))
        folder.delete_folder()


def download_files(folder: Place, to: Path) -> None:
    """Copy the Parquet files under a folder in an object store to this machine."""
    length = len(str(folder)) + 1
    for file in folder.rglob("*.parquet"):
        assert isinstance(file, UrlPath)
        target = to / str(file)[length:]
        target.parent.mkdir(parents=True, exist_ok=True)
        file.download(target)


def upload_files(folder: Path, to: Place) -> None:
    """Copy what is under a folder of this machine."""
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        target = to
        for part in file.relative_to(folder).parts:
            target = target / part
        target.upload(file) if isinstance(target, UrlPath) else target.write_bytes(file.read_bytes())


def _delete(written: list[UrlPath]) -> None:
    for one in written:
        if one.name.endswith(_DONE):
            one.unlink()
    for one in written:
        if not one.name.endswith(_DONE):
            one.delete_folder()


def dataset(files: Sequence[Place]) -> arrow.Dataset:
    """Parquet files as Arrow, and so DuckDB, reads them: some rows at a time.

    Raises:
        FileNotFoundError: there are none.
    """
    if not files:
        raise FileNotFoundError("there are no Parquet files to read")
    first = files[0]
    if isinstance(first, UrlPath):
        names = [one.arrow_name for one in files if isinstance(one, UrlPath)]
        return arrow.dataset(names, format="parquet", partitioning=None, **first.arrow())
    return arrow.dataset([str(one) for one in files], format="parquet", partitioning=None)
