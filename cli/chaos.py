"""``dat chaos``: kill workers and the broker at random moments, then compare every count with the truth."""

import json
import shutil
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from cli.evidence import write_evidence
from cli.options import Json, here


def chaos(
    clicks: Annotated[int, typer.Option(min=1, help="Clicks to send.")] = 200_000,
    worker_kills: Annotated[int, typer.Option(min=0, help="SIGKILLs of random workers.")] = 25,
    broker_kills: Annotated[int, typer.Option(min=0, help="SIGKILLs of the broker.")] = 5,
    redis_stops: Annotated[
        int, typer.Option(min=0, help="Times that Redis, which then answers online, is stopped for a few seconds.")
    ] = 0,
    freezes: Annotated[
        int, typer.Option(min=0, help="Times that a worker is frozen for longer than its session lasts.")
    ] = 0,
    redis_hangs: Annotated[int, typer.Option(min=0, help="Times that Redis is frozen for some seconds.")] = 0,
    clock_steps: Annotated[
        int, typer.Option(min=0, help="Times that a worker starts again with a clock that is wrong by up to an hour.")
    ] = 0,
    night: Annotated[
        bool,
        typer.Option("--night", help="Instead of faults: days that arrive out of order, a night after each."),
    ] = False,
    tampered: Annotated[
        int, typer.Option(min=0, help="Instead of faults: so many requests held, unanswered or repeated.")
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
        Path | None, typer.Option("--home", callback=here, help="Keep everything in this folder, for a look at it.")
    ] = None,
    json_file: Json = None,
) -> None:
    """Kill and freeze workers, broker and Redis while clicks stream in, and prove that every click counted once.

    It uses made-up bundles with a frozen item tower, so that each query's augmented vector has one right answer,
    which is computed by one thread and compared. With Redis, what it holds in the end is compared too.
    With --night real nights land, train and publish, the updater goes on at the cut of each, and every click must count
    once, in the bundle's state or in the stream.
    With --tampered a proxy before the broker holds requests of transactions, loses their answers and repeats them late.
    Exit status 1 if anything was lost, doubled, or differs.
    """
    from devstack.chaos.faults import ChaosRun, Plan
    from devstack.chaos.night import NightPlan, NightRun
    from devstack.chaos.tampering import TamperPlan, TamperRun

    folder = home or Path(tempfile.mkdtemp(prefix="dat-chaos-"))
    plan = Plan(
        clicks, worker_kills, broker_kills, redis_stops, freezes, redis_hangs, clock_steps, swap, workers, queries,
        items, rate, seed,
    )  # fmt: skip
    try:
        if night:
            result = NightRun(folder, NightPlan(clicks, queries=queries, items=items, seed=seed)).run()
        elif tampered:
            result = TamperRun(folder, TamperPlan(tampered, seed=seed)).run()
        else:
            result = ChaosRun(folder, plan).run()
    finally:
        if home is None:
            shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps(result, indent=2))
    if json_file:
        write_evidence(json_file, result)
    wrong = result["lost"] + result["doubled"] + result.get("store_wrong", 0)
    good = wrong == 0 and result.get("max_difference", 0) <= 1e-5
    raise typer.Exit(0 if good else 1)
