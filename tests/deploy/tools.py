"""helm and promtool, from the PATH or from build/tools, where deploy/tools.sh puts them."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy" / "helm" / "dat"
VALUES = sorted((ROOT / "deploy" / "helm" / "values").glob("*.yaml"))


def tool(name: str) -> str:
    found = shutil.which(name, path=f"{ROOT / 'build' / 'tools'}{os.pathsep}{os.environ['PATH']}")
    if not found:
        pytest.skip(f"there is no {name}: deploy/tools.sh fetches it")
    return found


def run(name: str, *arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [tool(name), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)
