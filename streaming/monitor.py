"""Whether clicks get through: what Kafka has, against what this process has worked on, looked at on a timer."""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

from model.settings.updater import UpdaterConfig
from streaming import metrics
from streaming.kafka.clients import close_quietly, free_consumer
from streaming.kafka.topics import PartitionsDiffer, same_partitions
from streaming.trim import trim

log = logging.getLogger(__name__)


class Member(Protocol):
    """A worker or a sink."""

    role: str
    positions: dict[TopicPartition, int]

    def interrupt(self, reason: str) -> None: ...


class Monitor:
    """Looks every ``monitor_s`` with clients of its own, so that a member that hangs cannot keep it from looking.

    Args:
        members: Of the bundle in service, as of now.
        versions: Of the bundles that are kept, whose records must not be deleted; none: nothing is.
        on_failure: Called when the topics have become such that nobody can go on.
    """

    def __init__(
        self,
        config: UpdaterConfig,
        members: Callable[[], Sequence[Member]],
        versions: Callable[[], list[str]],
        on_failure: Callable[[Exception], None],
    ):
        self._config, self._members, self._versions, self._on_failure = config, members, versions, on_failure
        self._trimmed = time.monotonic()
        self._stop = threading.Event()
        self._consumer: KafkaConsumer | None = None
        self._topics: dict[str, tuple[str, int]] | None = None
        self._looked = time.monotonic()
        self._moved: dict[tuple[str, TopicPartition], tuple[int, float]] = {}
        self._thread = threading.Thread(target=self._run, name="monitor", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def end(self) -> None:
        self._stop.set()

    @property
    def flowing(self) -> bool:
        """Whether Kafka answers, and whatever waits in a partition of ours has been worked on lately."""
        since = time.monotonic() - self._config.stalled_s
        return self._looked > since and all(moved > since for _, moved in list(self._moved.values()))

    def _run(self) -> None:
        while not self._stop.wait(self._config.monitor_s):
            try:
                self._look()
                if time.monotonic() - self._trimmed > self._config.trim_s and (versions := self._versions()):
                    self._trimmed = time.monotonic()
                    trim(self._config, versions)
            except PartitionsDiffer as error:
                self._on_failure(error)
                return
            except Exception as error:  # kafka-python has its own ways to fail, and whoever watches must not
                if self._consumer is not None:
                    close_quietly(self._consumer)
                self._consumer = None
                metrics.ERRORS.labels("monitor", type(error).__name__).inc()
                # kafka-python raises KeyError for a topic that the broker is still making; the next look finds it.
                event = "kafka_unreachable" if isinstance(error, (KafkaError, OSError)) else "look_failed"
                log.warning("%s bootstrap=%s error=%r", event, self._config.bootstrap, error)

    def _look(self) -> None:
        self._compare(same_partitions(self._config))
        if self._consumer is None:
            self._consumer = free_consumer(self._config, request_timeout_ms=10_000)
        members = list(self._members())
        ends = self._consumer.end_offsets(list({p for member in members for p in member.positions}))
        now, seen = time.monotonic(), {}
        for member in members:
            for partition, position in list(member.positions.items()):
                lag = max(0, ends.get(partition, 0) - position)
                metrics.LAG.labels(member.role, _name(partition)).set(lag)
                before, moved = self._moved.get((member.role, partition), (position, now))
                seen[member.role, partition] = position, now if not lag or position != before else moved
        for role, partition in self._moved.keys() - seen.keys():  # another process's now
            metrics.LAG.remove(role, _name(partition))
        self._moved, self._looked = seen, now

    def _compare(self, topics: dict[str, tuple[str, int]]) -> None:
        before, self._topics = self._topics or topics, topics
        grown = {name: count for name, (_, count) in topics.items() if before[name][1] != count}
        if grown:
            raise PartitionsDiffer(
                f"topics have another number of partitions than at the start, which moves ids between them: {grown}; "
                "docs/streaming.md says under more partitions how to go over to more"
            )
        if any(before[name][0] != id_ for name, (id_, _) in topics.items()):
            for member in self._members():
                member.interrupt("a topic was deleted and made anew")


def _name(partition: TopicPartition) -> str:
    return f"{partition.topic}-{partition.partition}"
