"""Writing clicks to the stream, on behalf of pages and apps."""

import asyncio
import threading
import time

from kafka import KafkaProducer
from kafka.errors import KafkaError

from feature_repo.click import Click
from streaming.config import KafkaConnection
from streaming.topics import CLICKS

_REMEMBER_S = 30.0


class NotWritten(RuntimeError):
    """The broker did not acknowledge a click; it may be sent again."""


class ClickWriter:
    """Produces clicks, keyed by query, and answers once the broker has them on all its replicas."""

    def __init__(self, kafka: KafkaConnection, timeout_s: float, topic: str = CLICKS):
        self._topic = topic
        self._timeout_s = timeout_s
        self._producer = KafkaProducer(
            **kafka.client,
            acks="all",
            linger_ms=0,
            retry_backoff_ms=20,
            bootstrap_timeout_ms=int(timeout_s * 1000),
            max_block_ms=int(timeout_s * 1000),
            request_timeout_ms=int(timeout_s * 1000),
            delivery_timeout_ms=int(timeout_s * 1000),
        )

    async def write(self, click: Click) -> None:
        """Raises:
        NotWritten: no acknowledgement within the timeout.
        """
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()

        def settle(error: BaseException | None) -> None:
            if not done.done():
                done.set_result(None) if error is None else done.set_exception(NotWritten(str(error)))

        def send() -> None:
            # Off the event loop: the first send waits for metadata, and any send for room in the buffer.
            future = self._producer.send(
                self._topic, click.model_dump_json(exclude_none=True).encode(), click.query_id.encode()
            )
            future.add_callback(lambda _: loop.call_soon_threadsafe(settle, None))
            future.add_errback(lambda error: loop.call_soon_threadsafe(settle, error))

        try:
            await asyncio.to_thread(send)
            await asyncio.wait_for(done, self._timeout_s)
        except (KafkaError, TimeoutError) as error:
            raise NotWritten(f"the broker did not acknowledge the click: {error or type(error).__name__}") from error

    def close(self) -> None:
        self._producer.close(timeout=2)


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
