"""Posting clicks on behalf of pages and apps, and what a caller must wait for to see its own."""

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from kafka.errors import KafkaError

from feature_repo.click_event import Click
from serving.desk import Busy
from streaming.clicks import ClickWriter

_THREADS = 8
_REMEMBER_S = 30.0


class NotWritten(RuntimeError):
    """The broker did not acknowledge a click; it may be sent again."""


class Posted(NamedTuple):
    """What the query counted before a posted click, and what it will count once that one is folded."""

    before: int
    after: int


class ClickDesk:
    """Writes clicks in threads of its own, so that a broker that is away holds up nobody but those who post.

    Args:
        count: How many clicks a query counts now.
        limit: Clicks on their way at most.
    """

    def __init__(self, writer: ClickWriter, count: Callable[[str], int], timeout_s: float, limit: int):
        self._writer = writer
        self._count = count
        self._timeout_s = timeout_s
        self._limit = limit
        self._pool = ThreadPoolExecutor(_THREADS, "clicks")
        self._expected = Expected()
        self._on_their_way = 0
        self.posted = 0

    async def post(self, click: Click) -> Posted:
        """Returns once all of the topic's replicas have the click.

        Raises:
            NotWritten: they did not acknowledge it in time.
            Busy: too many clicks are on their way.
        """
        if self._on_their_way >= self._limit:
            raise Busy(f"{self._on_their_way} clicks are on their way")
        self._on_their_way += 1
        try:
            # Where no broker is left, Kafka's client waits for one for longer than it is told to.
            async with asyncio.timeout(self._timeout_s + 1):
                return await asyncio.get_running_loop().run_in_executor(self._pool, self._post, click)
        except TimeoutError as error:
            raise NotWritten("the broker did not acknowledge the click in time; post it again") from error
        finally:
            self._on_their_way -= 1

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._writer.close()

    def _post(self, click: Click) -> Posted:
        before = self._count(click.query_id)
        try:
            self._writer.write(click, self._timeout_s)
        except KafkaError as error:
            raise NotWritten(
                f"the broker did not acknowledge the click ({type(error).__name__}); post it again"
            ) from error
        self.posted += 1
        return Posted(before, self._expected.posted(click.query_id, before))


class Expected:
    """How many clicks a query will count once those that were just posted are folded.

    The store alone cannot say: of two clicks in quick succession, the second is posted before the first is counted.
    """

    def __init__(self) -> None:
        self._counts: dict[str, tuple[int, float]] = {}
        self._lock = threading.Lock()

    def posted(self, query_id: str, counted: int) -> int:
        """One more click was posted for a query whose activity counted ``counted`` before it."""
        now = time.monotonic()
        with self._lock:
            if len(self._counts) > 10_000:
                self._counts = {id_: entry for id_, entry in self._counts.items() if now - entry[1] < _REMEMBER_S}
            before, at = self._counts.get(query_id, (0, 0.0))
            count = max(counted, before if now - at < _REMEMBER_S else 0) + 1
            self._counts[query_id] = (count, now)
        return count
