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
ARRAYS = ("model", "training", "evaluation", "streaming", "serving")
STEPS = {
    "ruff check": ["ruff", "check"],
    "ruff format": ["ruff", "format", "--check"],
    "mypy": ["mypy"],
    "documents": ["mkdocs", "build", "--strict", "--quiet", "--site-dir", "build/site"],
    # Two processes, each with what the other need not load: torch, and Spark with the readers of logs.
    "tests of arrays": ["pytest", "-m", QUICK, *(f"tests/{name}" for name in ARRAYS)],
    "other tests": ["pytest", "-m", QUICK, *(f"--ignore=tests/{name}" for name in ARRAYS)],
}


def check() -> None:
    """Lint, types, and the tests that need no server: the inner loop of a change. All of it: dat test."""
    began, running = time.monotonic(), {}
    for name, command in STEPS.items():
        # All at once: each is one process.
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
