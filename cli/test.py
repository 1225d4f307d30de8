"""``dat test``: the test suite, with whatever pytest is to be told."""

import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer


def test(
    arguments: Annotated[
        list[str] | None, typer.Argument(help="Passed on to pytest, after --, such as: -- -k fold")
    ] = None,
) -> None:
    """Run the test suite: the whole system on a real broker, real Spark and real Feast. Java 17 is needed."""
    root = Path(__file__).parents[1]
    command = [sys.executable, "-m", "pytest", *(arguments or [])]
    raise typer.Exit(subprocess.run(command, cwd=root, check=False).returncode)
