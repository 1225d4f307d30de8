"""Java archives from Maven Central, kept in jgo's cache."""

from pathlib import Path

from filelock import FileLock


class MavenError(RuntimeError):
    """Archives cannot be fetched."""


def fetch_jars(coordinates: str) -> list[Path]:
    """The jars of ``group:artifact:version[+…]`` and of all that they need; fetched the first time.

    Raises:
        MavenError: they cannot be fetched; with jgo's reason.
    """
    import jgo
    from jgo.constants import default_jgo_cache

    folder = default_jgo_cache()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        # jgo does not expect another process to fetch the same file meanwhile, and ends in an assertion.
        with FileLock(folder / "dat.lock"):
            return [Path(jar) for jar in jgo.build(coordinates).all_jars]
    except Exception as error:  # jgo raises many kinds: no network, a mirror that refuses, a full disk
        raise MavenError(f"{coordinates} could not be fetched from Maven Central: {error or repr(error)}") from error
