"""``dat chaos``: kill workers and the broker at random moments, then compare every count with the truth."""

import json
import shutil
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from cli.settings import Json


def chaos(
    clicks: Annotated[int, typer.Option(min=1, help="Clicks to send.")] = 200_000,
    worker_kills: Annotated[int, typer.Option(min=0, help="SIGKILLs of random workers.")] = 25,
    broker_kills: Annotated[int, typer.Option(min=0, help="SIGKILLs of the broker.")] = 5,
    redis_stops: Annotated[
        int, typer.Option(min=0, help="Times that Redis, which then answers online, is stopped for a few seconds.")
    ] = 0,
    swap: Annotated[bool, typer.Option("--swap", help="Put another bundle into service in the middle.")] = False,
    workers: Annotated[int, typer.Option(min=1, help="Worker processes a stage.")] = 2,
    queries: Annotated[int, typer.Option(min=1)] = 5_000,
    items: Annotated[int, typer.Option(min=1)] = 1_000,
    rate: Annotated[
        int, typer.Option(min=1, help="Clicks a second at most, so that there is something to kill.")
    ] = 2_000,
    seed: Annotated[int, typer.Option(help="Of the clicks and of the moments of the kills.")] = 0,
    home: Annotated[
        Path | None, typer.Option("--home", help="Keep everything in this folder, for a look at it.")
    ] = None,
    json_file: Json = None,
) -> None:
    """SIGKILL workers and the broker while clicks stream in, and prove that every click counted exactly once.

    It uses made-up bundles with a frozen item tower, so that each query's augmented vector has one right answer,
    which is computed by one thread and compared. With Redis, what it holds in the end is compared too.
    Exit status 1 if anything was lost, doubled, or differs.
    """
    from cli.storm import Plan, Storm

    folder = home or Path(tempfile.mkdtemp(prefix="dat-chaos-"))
    plan = Plan(clicks, worker_kills, broker_kills, redis_stops, swap, workers, queries, items, rate, seed)
    try:
        result = Storm(folder, plan).run()
    finally:
        if home is None:
            shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps(result, indent=2))
    if json_file:
        json_file.write_text(json.dumps(result, indent=2))
    good = result["lost"] == result["doubled"] == result.get("store_wrong", 0) == 0 and result["max_difference"] <= 1e-5
    raise typer.Exit(0 if good else 1)
