"""Logging what was answered to the topic ``impressions``, without ever slowing or failing an answer."""

import logging
import queue
import threading
import time
import zlib

from kafka import KafkaProducer
from kafka.errors import KafkaError

from serving.retrieval import Answer
from streaming.clients import RETRY, close_quietly
from streaming.config import KafkaConnection
from streaming.impressions import Impression
from streaming.topics import IMPRESSIONS

log = logging.getLogger(__name__)
_WAITING = 10_000  # impressions held in memory at most
_CLOSE_S = 3.0


def share_of(salt: str, query_id: str) -> float:
    """A number in [0, 1) that is always the same for a query, and independent between salts."""
    return zlib.crc32(f"{salt}\0{query_id}".encode(errors="surrogatepass")) / 2**32


class ImpressionLog:
    """Takes answers in no time and writes them from a thread of its own. Where the broker is away they are dropped and
    counted: an impression is worth less than an answer.

    Args:
        share: Of the queries, chosen by a hash, those whose answers are logged.
    """

    def __init__(self, kafka: KafkaConnection, share: float):
        self._kafka, self._share = kafka, share
        self._waiting: queue.Queue[Impression | None] = queue.Queue(_WAITING)
        self.written = 0
        self.dropped = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="impressions", daemon=True)
        self._thread.start()

    def note(
        self, answer: Answer, experiment: str | None = None, arm: str | None = None, teams: str | None = None,
        shown: bool = True,
    ) -> None:  # fmt: skip
        """Log an answer, if its query is among the chosen."""
        if share_of("impressions", answer.query_id) >= self._share:
            return
        try:
            self._waiting.put_nowait(
                Impression.model_construct(
                    query_id=answer.query_id,
                    at=answer.at,
                    served=time.time_ns() // 1_000_000,
                    items=[item.item_id for item in answer.items],
                    bundle=answer.bundle,
                    source=answer.source,
                    experiment=experiment,
                    arm=arm,
                    teams=teams,
                    shown=shown,
                )  # fmt: skip
            )
        except queue.Full:
            self.dropped += 1

    def close(self) -> None:
        """Write what waits, for at most some seconds."""
        self._stop.set()
        self._thread.join(2 * _CLOSE_S)

    def _written(self, _: object) -> None:
        self.written += 1

    def _dropped(self, _: Exception) -> None:
        self.dropped += 1

    def _run(self) -> None:
        producer, retry_at = None, 0.0
        while not (self._stop.is_set() and self._waiting.empty()):
            try:
                impression = self._waiting.get(timeout=0.1)
            except queue.Empty:
                continue
            try:
                if producer is None and time.monotonic() >= retry_at:
                    producer = KafkaProducer(
                        **self._kafka.client, **RETRY, linger_ms=50, max_block_ms=2_000, metrics_enabled=False,
                        allow_auto_create_topics=False,
                    )  # fmt: skip
                if producer is None:
                    self.dropped += 1
                    continue
                key, value = impression.query_id.encode(), impression.model_dump_json().encode()
                sent = producer.send(IMPRESSIONS, key=key, value=value)
                sent.add_callback(self._written).add_errback(self._dropped)
            except (KafkaError, UnicodeError) as error:
                self.dropped += 1
                if isinstance(error, KafkaError):
                    log.warning("impressions are dropped until the broker is back: %s", type(error).__name__)
                    retry_at = time.monotonic() + 5
                    if producer is not None:
                        close_quietly(producer)
                        producer = None
        if producer is not None:
            close_quietly(producer, _CLOSE_S)
