"""Write a file or a folder whole or not at all, whatever stops the process or the machine."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_write(final: Path) -> Iterator[Path]:
    """A path beside ``final`` to write a file, a folder or a link at, which then takes ``final``'s place.

    What is written is on the disk before it takes that place. An error leaves what ``final`` was. A crash leaves that,
    too, or nothing where it was a folder; never a part. What crashed processes left beside ``final`` is deleted.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    _delete_leftovers(final)
    staging, retired = (_beside(final, os.getpid(), what) for what in ("writing", "old"))
    try:
        yield staging
        _sync(staging)
        if final.is_dir() and not final.is_symlink():
            final.rename(retired)  # a folder cannot be renamed over another
        staging.replace(final)
        _sync(final.parent, inside=False)
    except BaseException:
        if retired.exists() and not final.exists():
            retired.rename(final)
        raise
    finally:
        _delete(staging)
        _delete(retired)


def _beside(final: Path, process: int, what: str) -> Path:
    return final.with_name(f".{final.name}.{process}.{what}")


def _delete_leftovers(final: Path) -> None:
    for left in final.parent.glob(f".{final.name}.*"):
        process, _, what = left.name.removeprefix(f".{final.name}.").partition(".")
        if what in ("writing", "old") and process.isdigit() and not runs(int(process)):
            _delete(left)


def runs(process: int) -> bool:
    """Whether another process of that number runs; this one's leftovers are those of a namesake."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return process != os.getpid()


def _sync(path: Path, inside: bool = True) -> None:
    """Wait until a file or a folder, with all that is in it, is on the disk; and let those read a file who may list its
    folder, whatever the library that wrote it thought of that."""
    if path.is_symlink():
        return
    if path.is_file():
        path.chmod(path.stat().st_mode & 0o777 | path.parent.stat().st_mode & 0o044)
    if inside and path.is_dir():
        for entry in path.iterdir():
            _sync(entry)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
