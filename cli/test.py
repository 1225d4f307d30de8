"""``dat test``: the test suite, with whatever pytest is to be told."""

import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

CONTEXT = {"ignore_unknown_options": True, "allow_extra_args": True}
LANES = ["--numprocesses", "3", "--dist", "loadgroup", "--max-worker-restart", "0"]
"""Two cores and one more process: the lane of Kafka mostly waits. After one that has crashed pytest would hang."""


def test(
    ctx: typer.Context,
    slow: Annotated[
        bool, typer.Option("--slow", help="Run the other tests: storms, chaos, Airflow, quality, demo variants.")
    ] = False,
) -> None:
    """Run the test suite: the whole system on a real broker, real Spark and real Feast. Java 17 is needed.

    What follows goes to pytest, such as: dat test -k fold, or: dat test tests/training
    """
    chosen = ["-m", "slow"] if slow else []
    arguments = ctx.args or LANES
    command = [sys.executable, "-m", "pytest", *chosen, *arguments]
    raise typer.Exit(subprocess.run(command, cwd=Path(__file__).parents[1], check=False).returncode)
