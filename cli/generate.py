"""``dat generate``: a made-up market at any scale, to try the night on."""

import os
import time
from pathlib import Path
from typing import Annotated

import typer

from cli.options import here
from cli.progress import TerminalProgress, console
from model.settings.settings import load_settings


def generate(
    out: Annotated[
        Path, typer.Option("--out", callback=here, help="The folder to write; card.toml in it is its card.")
    ],
    queries: Annotated[int, typer.Option(min=1)] = 20_000,
    items: Annotated[int, typer.Option(min=1)] = 5_000,
    days: Annotated[int, typer.Option(min=2)] = 14,
    clicks: Annotated[int, typer.Option(min=1, help="About how many.")] = 500_000,
    seed: int = 0,
) -> None:
    """Write a market like the paper's: nine categories of very uneven size, daily cycles, weekly trends, new queries
    and items every day, preferences that drift. The same numbers and seed give the same rows on any machine, and the
    true probability of every click is known: devstack/market.py has the law.
    """
    from cli.preflight import check_disk
    from devstack import generate as job
    from devstack.market import Market

    out = load_settings(data=out).data
    out.mkdir(parents=True, exist_ok=True)
    check_disk(out)
    started = time.perf_counter()
    with TerminalProgress().stage(f"generate {clicks:,} clicks", clicks) as advance:
        card = job.generate(Market(queries, items, days, seed), clicks, out, os.cpu_count() or 1, advance)
    console.print(f"{clicks / (time.perf_counter() - started):,.0f} clicks a second; now: dat nightly --data {card}")
