"""A home that is given by URL, and the folder that each machine has of its own beside it."""

import hashlib
import os
import re
from pathlib import Path
from typing import Any


def is_url(text: str) -> bool:
    """Whether a home is given by URL. ``file:///folder`` is a folder of this machine."""
    scheme, colon, _ = text.partition(":/")
    return bool(colon) and "/" not in scheme and scheme != "file"


def on_this_machine(given: Any) -> Any:
    """A path as it was given: ``s3a://bucket/dat`` must not become a local folder called ``s3a:``.

    Raises:
        ValueError: it is a URL, and not ``file:///folder``.
    """
    scheme, colon, rest = str(given).partition(":/")
    if not colon or "/" in scheme:
        return given
    if scheme == "file":
        return "/" + rest.lstrip("/")
    url = f"{scheme}://{rest.lstrip('/')}"
    raise ValueError(f"{url} is no folder or file here: mount that storage, and give the path that it has")


def as_url(home: str) -> str:
    """A home's URL as Arrow and Spark both read it: Hadoop's name for S3 is another, and a path has lost a slash."""
    scheme, _, rest = home.partition(":/")
    return f"{'s3' if scheme == 's3a' else scheme}://{rest.removeprefix('/').rstrip('/')}"


def own_folder(url: str, scratch: Path | None = None) -> Path:
    """This machine's folder for what is its own of a home by URL: locks, checkpoints, Spark's scratch, copies, SQLite.

    Args:
        scratch: What holds such folders; by default the user's cache.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dat"
    name = re.sub(r"[^A-Za-z0-9.-]+", "-", url).strip("-")
    return (scratch or cache).absolute() / f"{name[:60]}-{hashlib.sha256(url.encode()).hexdigest()[:8]}"
