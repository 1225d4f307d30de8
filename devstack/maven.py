"""Java archives from Maven Central, kept in jgo's cache."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from filelock import FileLock

_Jars = TypeVar("_Jars")


class MavenError(RuntimeError):
    """Archives cannot be fetched."""


def fetch_jars(coordinates: str) -> list[Path]:
    """The jars of ``group:artifact:version[+…]`` and of all that they need; fetched the first time.

    Raises:
        MavenError: they cannot be fetched; with jgo's reason.
    """
    import jgo

    return _fetched(coordinates, lambda: [Path(jar) for jar in jgo.build(coordinates).all_jars])


def fetch_jar(coordinates: str) -> Path:
    """As :func:`fetch_jars`, of one jar without what it needs."""
    from jgo.maven import MavenContext

    group, artifact, version = coordinates.split(":")
    return _fetched(
        coordinates, lambda: Path(MavenContext().project(group, artifact).at_version(version).artifact().resolve())
    )


def _fetched(coordinates: str, fetch: Callable[[], _Jars]) -> _Jars:
    from jgo.constants import default_jgo_cache

    folder = default_jgo_cache()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        # jgo does not expect another process to fetch the same file meanwhile, and ends in an assertion.
        with FileLock(folder / "dat.lock"):
            return fetch()
    except Exception as error:  # jgo raises many kinds: no network, a mirror that refuses, a full disk
        raise MavenError(f"{coordinates} could not be fetched from Maven Central: {error or repr(error)}") from error
