"""The service under a steady load: ``python -m benchmarks.retrieval --url http://127.0.0.1:8000 --rate 200``.

Requests leave at their appointed times whether or not earlier ones have been answered, and each is timed from its
appointed time: a service that stalls cannot hide it by slowing its callers down (no coordinated omission). Run it as a
process of its own, beside a service whose home has the corpus to be measured.
"""

import asyncio
import json
import random
import time
from pathlib import Path
from typing import Annotated

import httpx
import numpy as np
import typer


async def load(url: str, rate: float, seconds: float, n: int, connections: int) -> tuple[list[float], int]:
    """Milliseconds of each answer from when its request was due, and how many requests failed."""
    took: list[float] = []
    failed = 0
    limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
    async with httpx.AsyncClient(base_url=url, limits=limits, timeout=30) as client:
        ids = (await client.get("/v1/queries", params={"limit": 1000})).json()["query_ids"]
        await client.get("/v1/retrieve", params={"query_id": ids[0], "n": n})
        rng = random.Random(0)

        async def one(due: float) -> None:
            nonlocal failed
            try:
                reply = await client.get("/v1/retrieve", params={"query_id": rng.choice(ids), "n": n})
                failed += reply.status_code != 200
            except httpx.HTTPError:
                failed += 1
            took.append((time.perf_counter() - due) * 1000)

        async with asyncio.TaskGroup() as group:
            began = time.perf_counter()
            for k in range(int(rate * seconds)):
                due = began + k / rate
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
                group.create_task(one(due))
    return took, failed


def main(
    url: Annotated[str, typer.Option(help="The running service.")] = "http://127.0.0.1:8000",
    rate: Annotated[float, typer.Option(min=1, help="Requests a second.")] = 200,
    seconds: Annotated[float, typer.Option(min=1, help="For how long.")] = 20,
    n: Annotated[int, typer.Option(min=1, max=1000, help="Items in an answer.")] = 100,
    connections: Annotated[int, typer.Option(min=1, help="Connections kept.")] = 32,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures to this file.")] = None,
) -> None:
    """Latency from each request's due time, and the share of each step of the service."""
    before = httpx.get(f"{url}/v1/status").json()
    took, failed = asyncio.run(load(url, rate, seconds, n, connections))
    after = httpx.get(f"{url}/v1/status").json()
    answered = after["load"]["answered"] - before["load"]["answered"]
    steps = {step: 1000 * (after["seconds"][step] - before["seconds"][step]) / answered for step in after["seconds"]}
    p50, p90, p99 = np.percentile(took, [50, 90, 99])
    report = {
        "items": after["index"]["items"],
        "index": after["index"]["kind"],
        "requests_per_s": rate,
        "failed": failed,
        "p50_ms": round(float(p50), 2),
        "p90_ms": round(float(p90), 2),
        "p99_ms": round(float(p99), 2),
        "mean_ms": round(float(np.mean(took)), 2),
        "mean_ms_by_step": {step: round(spent, 3) for step, spent in steps.items()},
    }
    print(json.dumps(report, indent=2))
    if json_file:
        json_file.write_text(json.dumps(report, indent=2))


if __name__ == "__main__":
    typer.run(main)
