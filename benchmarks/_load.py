"""A load generator, to be run as a process of its own: ``python -m benchmarks._load http://127.0.0.1:8000 ids.txt``.

Requests leave at their appointed times whether or not earlier ones have been answered, and each is timed from its
appointed time: a service that stalls cannot hide it by slowing its callers down (no coordinated omission). It speaks
HTTP over bare sockets, at a tenth of a client library's cost: on two cores it must not be what it measures.
"""

import asyncio
import json
import random
import re
import time
from pathlib import Path
from typing import Annotated
from urllib.parse import quote, urlsplit

import numpy as np
import typer

_LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)
_TIMES = re.compile(rb'"waited_ms":([\d.e-]+),"took_ms":([\d.e-]+)')


class Connection:
    """A kept connection to ``http://host:port``; opens again after an error."""

    def __init__(self, url: str):
        address = urlsplit(url)
        self._at = address.hostname or "", address.port or 80
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def get(self, path: str) -> tuple[int, bytes]:
        """Status and body.

        Raises:
            OSError, asyncio.IncompleteReadError: the service went away.
        """
        if self._streams is None:
            self._streams = await asyncio.open_connection(*self._at)
        reader, writer = self._streams
        try:
            writer.write(f"GET {path} HTTP/1.1\r\nHost: {self._at[0]}\r\n\r\n".encode())
            head = await reader.readuntil(b"\r\n\r\n")
            length = _LENGTH.search(head)
            assert length is not None, "the service always says how long its answer is"
            return int(head[9:12]), await reader.readexactly(int(length[1]))
        except BaseException:
            writer.close()
            self._streams = None
            raise


class Questions:
    """Paths to ask, in a random order that is always the same: some of visitors whom nobody knows, some filtered."""

    def __init__(self, ids: list[str], n: int, unknown: float, filtered: float, categories: list[str]):
        self._ids, self._n, self._unknown, self._filtered = ids, n, unknown, filtered if categories else 0.0
        self._categories, self._rng = categories, random.Random(0)

    def next(self) -> tuple[str, str]:
        """The kind of question, and its path."""
        draw, rng = self._rng.random(), self._rng
        if draw < self._unknown:
            return "unknown", f"/v1/retrieve?query_id=visitor-{rng.randrange(10**9)}&n={self._n}"
        path = f"/v1/retrieve?query_id={quote(rng.choice(self._ids))}&n={self._n}"
        if draw < self._unknown + self._filtered:
            return "filtered", f"{path}&category={quote(rng.choice(self._categories))}"
        return "known", path


async def load(url: str, questions: Questions, rate: float, seconds: float, connections: int) -> dict:
    """Ask at a steady rate; returns latencies in ms from each request's due time, by kind, and where they went."""
    idle: asyncio.LifoQueue[Connection] = asyncio.LifoQueue()
    for _ in range(connections):
        idle.put_nowait(Connection(url))
    took: dict[str, list[float]] = {"known": [], "unknown": [], "filtered": []}
    inside, failed = [], 0

    async def one(due: float) -> None:
        nonlocal failed
        connection = await idle.get()
        try:
            kind, path = questions.next()
            status, body = await connection.get(path)
            failed += status != 200
            took[kind].append((time.perf_counter() - due) * 1000)
            if found := _TIMES.search(body, max(0, len(body) - 200)):
                inside.append([float(value) for value in found.groups()])
        except (OSError, asyncio.IncompleteReadError):
            failed += 1
        finally:
            idle.put_nowait(connection)

    async with asyncio.TaskGroup() as group:
        began = time.perf_counter()
        for k in range(int(rate * seconds)):
            due = began + k / rate
            if (pause := due - time.perf_counter()) > 0:
                await asyncio.sleep(pause)
            group.create_task(one(due))
    every = [ms for kind in took.values() for ms in kind]
    p50, p90, p99 = np.percentile(every, [50, 90, 99])
    waited, computed = np.mean(inside, axis=0) if inside else (0, 0)
    return {
        "requests": int(rate * seconds),
        "failed": failed,
        "p50_ms": round(float(p50), 2),
        "p90_ms": round(float(p90), 2),
        "p99_ms": round(float(p99), 2),
        **{f"{kind}_p50_ms": round(float(np.median(ms)), 2) for kind, ms in took.items() if ms},
        "mean_ms": round(float(np.mean(every)), 3),
        "waited_ms": round(float(waited), 3),
        "took_ms": round(float(computed), 3),
    }


async def saturate(url: str, questions: Questions, seconds: float, connections: int) -> dict:
    """As many requests as come back from so many connections, each asking again once answered."""
    until, answered = time.perf_counter() + seconds, 0

    async def one() -> None:
        nonlocal answered
        connection = Connection(url)
        while time.perf_counter() < until:
            status, _ = await connection.get(questions.next()[1])
            answered += status == 200

    await asyncio.gather(*(one() for _ in range(connections)))
    return {"requests_per_s": round(answered / seconds, 1), "answered": answered}


def main(
    url: Annotated[str, typer.Argument(help="The running service.")],
    ids: Annotated[Path, typer.Argument(help="A file of query ids, one a line.")],
    rate: Annotated[float, typer.Option(min=0, help="Requests a second; 0: as many as come back.")] = 200,
    seconds: Annotated[float, typer.Option(min=1, help="For how long.")] = 20,
    n: Annotated[int, typer.Option(min=1, max=1000, help="Items in an answer.")] = 100,
    connections: Annotated[int, typer.Option(min=1, help="Connections kept.")] = 32,
    unknown: Annotated[float, typer.Option(min=0, max=1, help="Share of visitors whom nobody knows.")] = 0.0,
    filtered: Annotated[float, typer.Option(min=0, max=1, help="Share of questions with a category.")] = 0.0,
    categories: Annotated[str, typer.Option(help="The categories, separated by commas.")] = "",
) -> None:
    """Ask a service at a steady rate and print latencies as JSON."""
    names = [name for name in categories.split(",") if name]
    questions = Questions(ids.read_text().splitlines(), n, unknown, filtered, names)
    asyncio.run(load(url, questions, 20, 2, 2))  # connections, caches and the service's first passes
    run = load(url, questions, rate, seconds, connections) if rate else saturate(url, questions, seconds, connections)
    print(json.dumps(asyncio.run(run)))


if __name__ == "__main__":
    typer.run(main)
