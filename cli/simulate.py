"""``dat simulate``: thousands of orders of crashes, pauses and late requests, each against a sequential fold."""

import json
import logging
import os
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import Annotated

import typer

from cli.options import Json


def simulate(
    histories: Annotated[int, typer.Option(min=1, help="How many orders of events to try.")] = 10_000,
    seed: Annotated[int, typer.Option(min=0, help="The first history's seed; the others' follow.")] = 0,
    json_file: Json = None,
) -> None:
    """Run the updater's own worker on a simulated broker, with a fault possible between any two calls.

    A history is a function of its seed: --histories 1 --seed S replays one that went wrong.
    Exit status 1 if any came to something else than a sequential fold does, or did not go on.
    """
    cores, began = os.cpu_count() or 1, time.perf_counter()
    share = -(-histories // cores)
    starts = range(seed, seed + histories, share)
    with ProcessPoolExecutor(len(starts)) as pool:
        runs = pool.map(partial(_wrong, end=seed + histories, share=share), starts)
        wrong = [violation for run in runs for violation in run]
    seconds = time.perf_counter() - began
    result = {"histories": histories, "violations": len(wrong), "histories_per_s": round(histories / seconds, 1)}
    for number, violation in wrong[:10]:
        print(f"seed {number}: {violation}")
    print(json.dumps(result, indent=2))
    if json_file:
        json_file.write_text(json.dumps(result | {"seeds": [number for number, _ in wrong]}, indent=2))
    raise typer.Exit(1 if wrong else 0)


def _wrong(start: int, end: int, share: int) -> list[tuple[int, str]]:
    from devstack.simulation.history import History, Violation

    logging.disable(logging.CRITICAL)
    wrong = []
    for number in range(start, min(start + share, end)):
        try:
            History(number).run()
        except Violation as violation:
            wrong.append((number, str(violation)))
    return wrong
