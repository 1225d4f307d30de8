"""Write a table whole or not at all."""

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path


def replace(final: Path, write: Callable[[Path], None]) -> Path:
    """Let ``write`` fill a folder beside ``final``, then put it in ``final``'s place.

    A crash leaves the previous table, or none; never half of one. Whatever a crashed run left beside goes first.
    """
    staging = final.with_name(f".{final.name}.writing")
    retired = final.with_name(f".{final.name}.old")
    for left in (staging, retired):
        shutil.rmtree(left, ignore_errors=True)
    final.parent.mkdir(parents=True, exist_ok=True)
    write(staging)
    if final.exists():
        final.rename(retired)
    staging.rename(final)
    shutil.rmtree(retired, ignore_errors=True)
    return final


def sha256(folder: Path) -> str:
    """One hash over the Parquet files of a folder, in order of their paths' folders and contents."""
    digests = []
    for file in folder.rglob("*.parquet"):
        with file.open("rb") as content:
            digests.append((str(file.parent.relative_to(folder)), hashlib.file_digest(content, "sha256").hexdigest()))
    digests.sort()
    return hashlib.sha256(repr(digests).encode()).hexdigest()
