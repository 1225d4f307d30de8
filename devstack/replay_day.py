"""Replay recorded clicks through the running system: ask, note the rank, click, and see the click show.

Queries replay side by side, each waiting only until its own last click shows in the answers. Clicks begin in order of
their time, at most ``ahead`` of them at once, so that the items' state stays close to the order of the log.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import httpx
import numpy as np
import pyarrow as pa

TOP = 100
PATIENCE_MS = 20_000


class ReplayError(RuntimeError):
    """The system did not answer, or a click did not show in time."""


@dataclass
class Outcome:
    """What the replay saw, by click: ranks (0 = not in the top 100) and the ms from acknowledgement to showing.

    ``freshness_ms`` has one value for each click after which the same query asked again.
    """

    ranks: np.ndarray
    done: np.ndarray
    freshness_ms: list[float] = field(default_factory=list)
    sent: int = 0


@dataclass(frozen=True)
class _Clicked:
    """A query after its click: where the click stands in the log, and when the broker had it."""

    token: str
    acknowledged: float


async def replay(url: str, clicks: pa.Table, ahead: int, on_click: Callable[[Outcome], None]) -> Outcome:
    """Replay clicks (event_id, query_id, item_id, event_time), in order of time, against the service at ``url``.

    Raises:
        ReplayError: an answer failed, or a click did not show within 20 s.
    """
    rows = clicks.select(["event_id", "query_id", "item_id", "event_time"]).to_pylist()
    outcome = Outcome(np.zeros(len(rows), np.int64), np.zeros(len(rows), bool))
    slots = asyncio.Semaphore(ahead)
    latest: dict[str, asyncio.Task[_Clicked]] = {}
    # An idle connection is let go well before the service closes it (60 s): one that is closed while it is taken up
    # again would fail a click of which nobody knows whether it was sent.
    limits = httpx.Limits(max_connections=256, max_keepalive_connections=256, keepalive_expiry=20)
    async with httpx.AsyncClient(base_url=url, timeout=60, limits=limits) as client:

        async def one(number: int, click: dict, before: asyncio.Task[_Clicked] | None) -> _Clicked:
            try:
                previous = await before if before else None
                answer = await _ask(client, click, previous)
                if previous:
                    outcome.freshness_ms.append((time.perf_counter() - previous.acknowledged) * 1000)
                items = [item["item_id"] for item in answer["items"]]
                outcome.ranks[number] = items.index(click["item_id"]) + 1 if click["item_id"] in items else 0
                clicked = await _click(client, click)
                outcome.done[number] = True
                outcome.sent += 1
                on_click(outcome)
                return clicked
            finally:
                slots.release()

        try:
            async with asyncio.TaskGroup() as group:
                for number, click in enumerate(rows):
                    await slots.acquire()
                    query = click["query_id"]
                    latest[query] = group.create_task(one(number, click, latest.get(query)))
        except* (ReplayError, httpx.TransportError) as failures:
            first = failures.exceptions[0]
            said = first if isinstance(first, ReplayError) else f"{url} went away ({type(first).__name__})"
            raise ReplayError(str(said)) from first
    return outcome


async def _ask(client: httpx.AsyncClient, click: dict, previous: _Clicked | None) -> dict:
    asked: dict[str, str | int] = {"query_id": click["query_id"], "n": TOP, "at": click["event_time"]}
    if previous:
        asked |= {"wait_for": previous.token, "timeout_ms": PATIENCE_MS}
    answer = _checked(await client.get("/v1/retrieve", params=asked))
    if previous and not answer["reached"]:
        raise ReplayError(f"a click of query {click['query_id']} did not show within {PATIENCE_MS // 1000} s")
    return answer


async def _click(client: httpx.AsyncClient, click: dict) -> _Clicked:
    posted = _checked(await client.post("/v1/clicks", json=click))
    return _Clicked(posted["token"], time.perf_counter())


def _checked(response: httpx.Response) -> dict:
    if response.is_error:
        raise ReplayError(f"{response.request.url.path} answered {response.status_code}: {response.text[:200]}")
    return response.json()
