"""Whether a token names records that there are. Nobody may be made to wait for a click that nobody has written.

Only Kafka knows, and every process can ask it: after a restart, of a click that another process has written, or one
that a shop wrote to Kafka itself. A signature would need a key that all processes share, and could not cover the last.
"""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

from kafka import KafkaConsumer, TopicPartition

from model.settings.updater import KafkaConnection
from serving.token import Place, Token
from streaming.kafka.clients import close_quietly, free_consumer

_PATIENCE_S = 1.0  # for the broker to say, and before it is asked again after it did not
_TIMEOUT_MS = 5_000


class LogEnds:
    """Asks Kafka where ``clicks`` and ``dismissed`` end, for tokens beyond what it said before."""

    def __init__(self, kafka: KafkaConnection):
        self._kafka = kafka
        self._ends: dict[TopicPartition, int] = {}
        self._consumer: KafkaConsumer | None = None
        self._pool = ThreadPoolExecutor(1, "log-ends")
        self._looking = asyncio.Lock()
        self._looks = 0
        self._away, self._next_look = False, 0.0

    async def have(self, token: Token) -> bool | None:
        """Whether all places of a token are of records that there are; None: the broker does not say."""
        places = [(self._kafka.topics.clicks, token), (self._kafka.topics.dismissed, token.dismissed)]
        named = [(TopicPartition(topic, place.partition), place.offset) for topic, place in places if place]
        if self._known(named):
            return True
        before = self._looks
        async with self._looking:
            # Whoever waited for the lock shares the look of the first: it began after all of them had come.
            if self._looks == before and not (self._away and time.monotonic() < self._next_look):
                await self._look()
        return True if self._known(named) else None if self._away else False

    def note(self, topic: str, place: Place) -> None:
        """A record that has been written: its token need not be asked for."""
        partition = TopicPartition(topic, place.partition)
        self._ends[partition] = max(self._ends.get(partition, 0), place.offset + 1)

    def close(self) -> None:
        if self._consumer is not None:
            self._pool.submit(close_quietly, self._consumer)  # in the thread that uses it
        self._pool.shutdown(wait=False)

    def _known(self, named: list[tuple[TopicPartition, int]]) -> bool:
        return all(offset < self._ends.get(partition, 0) for partition, offset in named)

    async def _look(self) -> None:
        self._looks += 1
        try:
            async with asyncio.timeout(_PATIENCE_S):
                self._ends |= await asyncio.get_running_loop().run_in_executor(self._pool, self._read)
            self._away = False
        except Exception:  # Kafka's own kinds, and those of a client that is half open
            self._away, self._next_look = True, time.monotonic() + _PATIENCE_S

    def _read(self) -> dict[TopicPartition, int]:
        # Of what is written, not of what is committed: others' open transactions hide no click that was acknowledged.
        self._consumer = self._consumer or free_consumer(
            self._kafka, committed=False, request_timeout_ms=_TIMEOUT_MS, client_id="log-ends"
        )
        topics = (self._kafka.topics.clicks, self._kafka.topics.dismissed)
        partitions = [
            TopicPartition(topic, partition)
            for topic in topics
            for partition in self._consumer.partitions_for_topic(topic) or ()
        ]
        return self._consumer.end_offsets(partitions) if partitions else {}
