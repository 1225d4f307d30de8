"""``dat check``: what a change must pass before it is looked at, in a minute or two and without a server."""

import os
import subprocess
import sys
import time
from pathlib import Path

import typer

from cli.progress import console

ROOT = Path(__file__).parents[1]
QUICK = "not slow and not server and not trains and not long"
STEPS = {
    "ruff check": ["ruff", "check"],
    "ruff format": ["ruff", "format", "--check"],
    "mypy": ["mypy"],
    "documents": ["mkdocs", "build", "--strict", "--quiet", "--site-dir", "build/site"],
    "tests": ["pytest", "-m", QUICK, "--numprocesses", "2", "--dist", "loadgroup", "--max-worker-restart", "0"],
}


def check() -> None:
    """Lint, types, and the tests that need no server: the inner loop of a change. All of it: dat test."""
    began, running = time.monotonic(), {}
    for name, command in STEPS.items():
        # All at once: each is one process, and the longest, types and tests, have a core each.
        running[name] = subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=ROOT, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
    failed = []
    for name, process in running.items():
        output, _ = process.communicate()
        console.print(f"{'[green]passed' if process.returncode == 0 else '[red]failed'}[/]  {name}")
        if process.returncode:
            failed.append(name)
            console.print(output, markup=False, highlight=False, soft_wrap=True)
    console.print(f"{time.monotonic() - began:.0f} s")
    raise typer.Exit(bool(failed))
