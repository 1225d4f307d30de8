"""One worker: a member of a stage's consumer group that turns records into transactions, exactly once.

Where a batch stands in a crash: before the commit, nothing of it is visible, and the next owner of its partitions
reads it again; after the commit all of it is, and the next owner starts behind it, with the state that the changelog
holds. There is no moment in between.
"""

import contextlib
import logging
import threading
import time

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import (
    CommitFailedError,
    FencedInstanceIdError,
    IllegalStateError,
    KafkaError,
    ProducerFencedError,
)
from kafka.structs import OffsetAndMetadata

from streaming import metrics
from streaming.changelog import read_committed
from streaming.clients import close_quietly, group_consumer
from streaming.config import UpdaterConfig
from streaming.offsets import group_name
from streaming.packing import ends
from streaming.partitions import Partitions
from streaming.stages import Outcome, Stage
from streaming.transactions import TransactionError, Transactions

log = logging.getLogger(__name__)


class WorkerError(RuntimeError):
    """A worker cannot go on. The message says why and what to do."""

    @classmethod
    def of(cls, name: str, group: str) -> "WorkerError":
        """The error of a worker whose name was taken."""
        return cls(f"another process works as {name} in the group {group}: give each its own instance name")


class Worker:
    """Runs a stage until told to stop.

    Args:
        stage: What to do with the records; its state belongs to this worker alone.
        config: Settings.
        stop: Set it, and :meth:`run` returns after the batch at hand.
    """

    def __init__(self, stage: Stage, config: UpdaterConfig, stop: threading.Event):
        self.stage, self.config, self.stop = stage, config, stop
        self.group = group_name(config, stage.name, stage.bundle.version)
        self.name = f"{stage.name}-{config.instance}"
        self.ready = threading.Event()
        """Set once the state of the first partitions is restored, or it has none for now."""
        self._transactions = Transactions(config, f"{self.group}-{config.instance}")
        self._partitions = Partitions()
        self._consumer: KafkaConsumer | None = None

    def run(self) -> None:
        """Work until ``stop`` is set; a broker that goes away is waited for.

        Raises:
            WorkerError: another process runs under the same instance name.
        """
        pause = 0.1
        while not self.stop.is_set():
            try:
                self._session()
            except FencedInstanceIdError as error:
                raise WorkerError.of(self.name, self.group) from error
            except (KafkaError, TransactionError, TimeoutError, OSError) as error:
                log.warning("worker_interrupted worker=%s error=%r retry_s=%.1f", self.name, error, pause)
                self.stop.wait(pause)
                pause = min(2 * pause, self.config.retry_max_s)
            else:
                pause = 0.1

    def _session(self) -> None:
        """Join the group and work, until told to stop or an error ends it; state is restored afresh every time."""
        self._partitions = Partitions()
        try:
            self._transactions.open()
            self.stage.open()
            linger = {"fetch_min_bytes": 1 << 16, "fetch_max_wait_ms": self.stage.linger_ms}
            self._consumer = self._partitions.consumer = group_consumer(
                self.config,
                self.group,
                [self.stage.source],
                self.name,
                listener=self._partitions,
                max_poll_records=self.stage.batch_records,
                max_partition_fetch_bytes=4 << 20,
                **(linger if self.stage.linger_ms else {}),
            )
            while not self.stop.is_set():
                self._turn()
        finally:
            self.stage.close()
            self._transactions.close()
            if self._consumer is not None:
                close_quietly(self._consumer, 2)
                self._consumer = None

    def _turn(self) -> None:
        self.stage.refresh()
        settled = self._partitions.settled
        polled = self._consumer.poll(timeout_ms=self.config.poll_ms)
        # Before the restore: what was read of a partition that is new will be read again from where its state ends.
        records = [r for partition, batch in polled.items() if partition in self._partitions.ready for r in batch]
        if self._partitions.new:
            self._restore(list(self._partitions.new))
        elif settled:
            self.ready.set()
        if records:
            offsets = {TopicPartition(self.stage.source, p): offset for p, offset in ends(records).items()}
            with metrics.BATCH.labels(self.stage.name).time():
                outcome = self.stage.process(records)
            self._commit(outcome, records, offsets)
            self._report(outcome)
        outcome = self.stage.tick({partition.partition for partition in self._partitions.ready})
        if outcome is not None:
            # Nothing was read; but with its offsets, Kafka refuses the transaction of a worker that has been replaced.
            ready = list(self._partitions.ready)
            self._commit(outcome, [], {partition: self._consumer.position(partition) for partition in ready})

    def _commit(self, outcome: Outcome, records: list, offsets: dict[TopicPartition, int]) -> None:
        try:
            with metrics.COMMIT.labels(self.stage.name).time():
                self._transactions.commit(outcome.messages, offsets, self._consumer.group_metadata())
        except TransactionError as error:
            metrics.FAILED.labels(self.stage.name).inc()
            log.warning("transaction_failed worker=%s records=%d error=%s", self.name, len(records), error)
            if isinstance(error.__cause__, FencedInstanceIdError):
                raise error.__cause__ from error
            if isinstance(error.__cause__, ProducerFencedError):
                self._check_membership(offsets | _firsts(records))
            self._recover(records, offsets, outcome)
        else:
            self._done(outcome)

    def _check_membership(self, begun: dict[TopicPartition, int]) -> None:
        """Find out whether a process of the same name has taken this worker's place.

        The transactional id alone cannot tell: whoever asks for it last has it, and two such processes would take it
        from each other for ever. Committing what is committed already changes nothing, but Kafka checks the member.
        Where nothing is committed yet, that is the offset at which this worker has ``begun``.

        Raises:
            FencedInstanceIdError: it has.
        """
        committed = {partition: self._consumer.committed(partition) for partition in begun}
        same = {
            partition: OffsetAndMetadata(begun[partition] if offset is None else offset, "", -1)
            for partition, offset in committed.items()
        }
        with contextlib.suppress(CommitFailedError):  # only a rebalance
            self._consumer.commit(same)

    def _done(self, outcome: Outcome) -> None:
        self.stage.apply(outcome)
        metrics.CLICKS.labels(self.stage.name).inc(outcome.clicks)
        metrics.REJECTED.inc(outcome.rejected)
        metrics.REPEATED.inc(outcome.repeated)
        if outcome.rejected:
            log.warning("clicks_rejected worker=%s count=%d", self.name, outcome.rejected)

    def _report(self, outcome: Outcome) -> None:
        if outcome.arrived:
            metrics.FRESHNESS.labels(self.stage.name).observe(max(0.0, time.time() - outcome.arrived / 1000))
        behind = 0
        for partition in list(self._partitions.ready & self._consumer.assignment()):
            behind += max(0, (self._consumer.highwater(partition) or 0) - (self._consumer.position(partition) or 0))
        metrics.LAG.labels(self.stage.name).set(behind)

    def _recover(self, records: list, offsets: dict[TopicPartition, int], outcome: Outcome) -> None:
        """After a failed transaction: ask Kafka whether it was committed, then take it over or do it again."""
        self._transactions.open()  # ends whatever was open, so that the committed offsets are final
        if not records:
            return  # only a tick, which the next one repeats
        committed = {partition: self._consumer.committed(partition) for partition in offsets}
        done = [(committed[partition] or 0) >= offset for partition, offset in offsets.items()]
        if all(done):
            self._done(outcome)
        elif not any(done):
            self._seek(_firsts(records))
        else:  # some partitions went to another worker meanwhile
            self._partitions.ready.difference_update(offsets)
            self._partitions.new.update(set(offsets) & self._consumer.assignment())

    def _seek(self, positions: dict[TopicPartition, int]) -> None:
        for partition, offset in positions.items():
            try:
                self._consumer.seek(partition, offset)
            except (IllegalStateError, AssertionError):  # it is another worker's by now
                self._partitions.ready.discard(partition)

    def _restore(self, partitions: list[TopicPartition]) -> None:
        """Bring the state of some partitions up to date, and their reading to where that state ends."""
        rows = 0
        accounted = dict.fromkeys((partition.partition for partition in partitions), 0)
        logs = [TopicPartition(self.stage.changelog, partition.partition) for partition in partitions]
        for change in read_committed(self.config, logs, self.stage.bundle.version):
            self.stage.restore(change.rows)
            rows += len(change.rows)
            accounted[change.partition] = max(accounted[change.partition], change.next)
        for partition in partitions:
            # Asked for only now: a transaction that the changelog has waited for may have moved it.
            committed = self._consumer.committed(partition)
            start = self.stage.start_offset(partition.partition) if committed is None else committed
            # A group that nobody used for a week has no offsets any more; the changelog still knows.
            position = max(start, accounted[partition.partition])
            self.stage.prime(partition.partition, position)
            self._seek({partition: position})
            self._partitions.new.discard(partition)
            if partition in self._consumer.assignment():
                self._partitions.ready.add(partition)
                self._consumer.resume(partition)
        log.info("restored worker=%s partitions=%s rows=%d", self.name, sorted(accounted), rows)


def _firsts(records: list) -> dict[TopicPartition, int]:
    """The offset of the first record of each partition."""
    first: dict[TopicPartition, int] = {}
    for record in records:
        first.setdefault(TopicPartition(record.topic, record.partition), record.offset)
    return first
