"""Logging what people were shown to the topic ``impressions``, without ever slowing or failing an answer."""

import zlib
from collections import deque

from kafka import KafkaProducer
from kafka.errors import KafkaError

from model.settings.updater import KafkaConnection
from serving.ab.impressions import Impression
from serving.background import Background
from serving.metrics import IMPRESSIONS
from streaming.kafka.clients import RETRY, close_quietly

_WAITING = 10_000  # impressions held in memory at most
_EVERY_S = 0.25
_CLOSE_S = 1.0


def share_of(salt: str, query_id: str) -> float:
    """A number in [0, 1) that is always the same for a query, and independent between salts."""
    return zlib.crc32(f"{salt}\0{query_id}".encode(errors="surrogatepass")) / 2**32


class ImpressionLog(Background):
    """Takes impressions in no time and writes them four times a second from a thread of its own. Where the broker is
    away they are dropped and counted: an impression is worth less than an answer.

    Args:
        share: Of the queries, chosen by a hash, those whose impressions are logged.
    """

    def __init__(self, kafka: KafkaConnection, share: float):
        super().__init__("impressions")
        self._kafka, self._share = kafka, share
        self._waiting: deque[Impression] = deque()
        self.written = self.dropped = 0

    def note(self, impression: Impression) -> None:
        """Log an impression, if its query is among the chosen."""
        if share_of("impressions", impression.query_id) >= self._share:
            return
        if len(self._waiting) >= _WAITING:
            self._dropped()
        else:
            self._waiting.append(impression)

    def expected(self, error: Exception) -> bool:
        return isinstance(error, KafkaError)

    def run(self) -> None:
        producer = None
        try:
            while not (self._stop.is_set() and not self._waiting):
                self._stop.wait(_EVERY_S)
                if not self._waiting:
                    continue
                producer = producer or KafkaProducer(
                    **self._kafka.client, **RETRY, linger_ms=50, max_block_ms=2_000, metrics_enabled=False,
                    allow_auto_create_topics=False,
                )  # fmt: skip
                self._send(producer)
                self.worked()
        finally:
            while self._waiting and not self._stop.is_set():  # the broker is away
                self._waiting.popleft()
                self._dropped()
            if producer is not None:
                close_quietly(producer, _CLOSE_S)

    def _send(self, producer: KafkaProducer) -> None:
        while self._waiting:
            impression = self._waiting.popleft()
            try:
                key = impression.query_id.encode()
                value = impression.as_json()
            except UnicodeError:  # half a surrogate pair, which no topic takes
                self._dropped()
                continue
            sent = producer.send(self._kafka.topics.impressions, key=key, value=value)
            sent.add_callback(self._written).add_errback(self._dropped)

    def _written(self, _: object = None) -> None:
        self.written += 1
        IMPRESSIONS.labels("written").inc()

    def _dropped(self, _: object = None) -> None:
        self.dropped += 1
        IMPRESSIONS.labels("dropped").inc()
