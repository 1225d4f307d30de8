"""Posting events on behalf of pages and apps."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from kafka.errors import KafkaError

from model.click import Click
from model.settings.updater import KafkaConnection
from model.tracing import headers
from serving.batcher import Overloaded
from serving.metrics import CLICKS
from serving.rates import Rates
from serving.token import Place, Token
from streaming.clicks import ClickWriter
from streaming.dismissals import Dismissal

_THREADS = 8


class NotWritten(RuntimeError):
    """The broker did not acknowledge a click; it may be sent again."""


class TooManyClicks(RuntimeError):
    """A query clicks more than is allowed. ``retry_after_s``: when it may again."""

    def __init__(self, query_id: str, limit: int, retry_after_s: int):
        super().__init__(f"{query_id!r} has clicked {limit} times within a minute")
        self.retry_after_s = retry_after_s


class ClickProducer:
    """Writes clicks in threads of its own, so that a broker that is away holds up nobody but those who post.

    Args:
        limit: Clicks on their way at most. per_minute: Clicks that one query may post.
    """

    def __init__(self, kafka: KafkaConnection, timeout_s: float, limit: int, per_minute: int):
        self._kafka, self._timeout_s, self._limit = kafka, timeout_s, limit
        self._rates, self._per_minute = Rates(), per_minute
        self._pool = ThreadPoolExecutor(_THREADS, "clicks")
        self._writer: ClickWriter | None = None  # made when it is first needed: a broker may be away at the start
        self._making = threading.Lock()
        self._on_their_way = 0
        self.posted = 0

    async def post(self, click: Click) -> Token:
        """Returns the click's place in the log, once all of the topic's replicas have it.

        Raises:
            NotWritten: they did not acknowledge it in time.
            Overloaded: too many clicks are on their way. TooManyClicks: this query's are too many.
        """
        if wait_s := self._rates.take(click.query_id, self._per_minute, self._per_minute / 60):
            raise TooManyClicks(click.query_id, self._per_minute, wait_s)
        if self._on_their_way >= self._limit:
            CLICKS.labels("refused").inc()
            raise Overloaded(f"{self._on_their_way} clicks are on their way")
        traced = headers()  # here, since a thread of the pool knows of no request
        written = await self._in_pool(lambda writer: writer.write(click, self._timeout_s, traced))
        self.posted += 1
        CLICKS.labels("written").inc()
        return Token(written.partition, written.offset)

    async def dismiss(self, query_id: str, said: Dismissal) -> Place:
        """Tell all services of a dismissal that has been posted; they need not wait for the updater.

        Raises:
            NotWritten: as :meth:`post`.
        """
        topic, value = self._kafka.topics.dismissed, said.as_json()
        written = await self._in_pool(lambda writer: writer.write_to(topic, query_id, value, self._timeout_s))
        return Place(written.partition, written.offset)

    async def _in_pool(self, write: Callable[[ClickWriter], Any]) -> Any:
        self._on_their_way += 1
        try:
            # Where no broker is left, Kafka's client waits for one for longer than it is told to.
            async with asyncio.timeout(self._timeout_s + 1):
                return await asyncio.get_running_loop().run_in_executor(self._pool, self._write, write)
        except (KafkaError, TimeoutError) as error:
            CLICKS.labels("failed").inc()
            raise NotWritten(
                f"the broker did not acknowledge the click ({type(error).__name__}); post it again"
            ) from error
        finally:
            self._on_their_way -= 1

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
        if self._writer is not None:
            self._writer.close(timeout_s=2)

    def _write(self, write: Callable[[ClickWriter], Any]) -> Any:
        with self._making:
            self._writer = self._writer or ClickWriter(self._kafka)
        return write(self._writer)
