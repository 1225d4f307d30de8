"""Which code made a bundle: the package's version, and the commit where it runs from a checkout."""

import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_ROOT = Path(__file__).parents[1]


def code_version() -> dict[str, str]:
    """``package`` and, from a checkout of the project, ``commit``, which ends in ``+`` if files differ from it."""
    try:
        found = {"package": version("dat-retrieval")}
    except PackageNotFoundError:
        found = {"package": "unknown"}
    if (_ROOT / ".git").exists():
        commit, changes = _git("rev-parse", "HEAD"), _git("status", "--porcelain", "--untracked-files=no")
        if commit:
            found["commit"] = commit + ("+" if changes else "")
    return found


def _git(*arguments: str) -> str:
    """What git prints; nothing where there is no git."""
    try:
        done = subprocess.run(["git", "-C", str(_ROOT), *arguments], capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
