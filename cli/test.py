"""``dat test``: the test suite, with whatever pytest is to be told."""

import subprocess
import sys
from pathlib import Path

import typer

CONTEXT = {"ignore_unknown_options": True, "allow_extra_args": True}


def test(ctx: typer.Context) -> None:
    """Run the test suite: the whole system on a real broker, real Spark and real Feast. Java 17 is needed.

    What follows goes to pytest, such as: dat test -k fold, or: dat test tests/training
    """
    command = [sys.executable, "-m", "pytest", *ctx.args]
    raise typer.Exit(subprocess.run(command, cwd=Path(__file__).parents[1], check=False).returncode)
