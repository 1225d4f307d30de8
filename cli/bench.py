"""``dat bench``: the benchmarks, each beside a peer and a floor in one run."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

CONTEXT = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}
_ROOT = Path(__file__).parents[1]


def bench(
    ctx: typer.Context,
    name: Annotated[str | None, typer.Argument(help="Which benchmark; without one, their names.")] = None,
) -> None:
    """Run a benchmark: `dat bench updater --json FILE`; `dat bench updater --help` says what it measures."""
    known = sorted(path.stem for path in (_ROOT / "benchmarks").glob("[a-z]*.py"))
    if name not in known:
        print(f"dat: the benchmarks are: {', '.join(known)}", file=sys.stderr)
        raise typer.Exit(2)
    # In this process's place: whoever ends it ends the benchmark.
    os.chdir(_ROOT)
    os.execv(sys.executable, [sys.executable, "-m", f"benchmarks.{name}", *ctx.args])
