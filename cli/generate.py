"""``dat generate``: a made-up market at any scale, to try the night on."""

import time
from pathlib import Path
from typing import Annotated

import typer

from cli.progress import TerminalProgress, console
from cli.settings import load_settings


def generate(
    out: Annotated[Path, typer.Option("--out", help="The folder to write; its card.toml is the dataset card.")],
    queries: Annotated[int, typer.Option(min=1)] = 20_000,
    items: Annotated[int, typer.Option(min=1)] = 5_000,
    days: Annotated[int, typer.Option(min=2)] = 14,
    clicks: Annotated[int, typer.Option(min=1, help="About how many.")] = 500_000,
    seed: int = 0,
) -> None:
    """Write a market like the paper's: nine categories of very uneven size, daily cycles, weekly trends, new queries
    and items every day, preferences that drift. The same numbers and seed give the same rows on any machine, and the
    true probability of every click is known: spark_jobs/market.py has the law.
    """
    from cli.broker import java
    from cli.preflight import check_disk, quiet

    settings = load_settings()
    out.mkdir(parents=True, exist_ok=True)
    check_disk(out)
    quiet()
    java()
    from spark_jobs import generate as job
    from spark_jobs.market import Market
    from spark_jobs.session import spark_session

    started = time.perf_counter()
    with (
        spark_session(settings.night, out / ".spark") as spark,
        TerminalProgress().stage(f"generate {clicks:,} clicks"),
    ):
        card = job.generate(spark, Market(queries, items, days, seed), clicks, out)
    console.print(f"{clicks / (time.perf_counter() - started):,.0f} clicks a second; now: dat nightly --data {card}")
