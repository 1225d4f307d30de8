"""Quix Streams doing the query stage's moving averages on the same topic, in an environment of its own."""

import hashlib
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from model.bundle import Bundle

_HERE = Path(__file__).parent


def environment(name: str) -> Path:
    """The Python of an environment with the packages of ``<name>.txt``, made once by uv and kept in the cache folder.

    Raises:
        subprocess.CalledProcessError: the packages cannot be fetched.
    """
    wanted = _HERE / f"{name}.txt"
    mark = hashlib.sha256(wanted.read_bytes()).hexdigest()[:8]
    folder = Path.home() / ".cache" / "dat" / f"{name}-{mark}"
    python = folder / "bin" / "python"
    if not (folder / "whole").is_file():
        uv = [sys.executable, "-m", "uv"]
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        subprocess.run([*uv, "venv", "--quiet", "--clear", "--python", version, str(folder)], check=True)
        install = ["pip", "install", "--quiet", "--python", str(python), "-r", str(wanted)]
        subprocess.run([*uv, *install], check=True)
        (folder / "whole").touch()
    return python


def quixstreams_per_s(bootstrap: str, clicks: int, bundle: Bundle) -> int:
    """Clicks a second, from its first to its last commit, as the query stage is measured."""
    with tempfile.TemporaryDirectory(prefix="dat-quix-") as scratch:
        vectors = Path(scratch) / "vectors.npz"
        memories = np.array(bundle.manifest.config.ema_alphas)
        np.savez(vectors, ids=np.array(bundle.items.ids), vectors=bundle.items.vectors, memories=memories)
        script, state = _HERE / "_quixstreams_ema.py", Path(scratch) / "state"
        command: list[str | Path] = [environment("quixstreams"), script, bootstrap, str(clicks), vectors, state]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return round(clicks / float(done.stdout.split()[-1]))
