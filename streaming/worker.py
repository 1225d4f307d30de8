"""One worker: a member of a stage's consumer group that turns records into transactions, exactly once.

Where a batch stands in a crash: before the commit, nothing of it is visible, and the next owner of its partitions
reads it again; after the commit all of it is, and the next owner starts behind it, with the state that the changelog
holds. There is no moment in between.

It is a state machine over a :class:`~streaming.kafka.port.Port`: all that can go wrong goes wrong in a call of the
port, so ``dat simulate`` can try every order of it. Its rule is: **a partition's state is trusted only while this
worker's own next offset is the one that the group has committed.** Whenever Kafka may have given the partition to
somebody else meanwhile, the two are compared, and where they differ the state is restored.
"""

import logging
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from kafka import TopicPartition
from kafka.errors import FencedInstanceIdError, KafkaError, OffsetOutOfRangeError

from model.settings.updater import UpdaterConfig
from model.tracing import linked
from streaming import metrics
from streaming.clicks import Rejected
from streaming.kafka.changelog import Change
from streaming.kafka.offsets import group_name
from streaming.kafka.packing import ends
from streaming.kafka.port import KafkaPort, Member, Port, Reading
from streaming.kafka.records import UnknownFormat
from streaming.kafka.transactions import TransactionError
from streaming.stages.batch import BatchResult, Stage

log = logging.getLogger(__name__)
_RESTORE_S = 0.05  # how long a turn restores at most, so that the partitions at work go on meanwhile
_SET_ASIDE = 100  # records in a row that fail: then it is not the records
_TROUBLES, _TROUBLE_S = 3, 60.0  # so many errors within so many seconds are trouble


class WorkerError(RuntimeError):
    """A worker cannot go on. The message says why and what to do."""

    @classmethod
    def of(cls, name: str, group: str) -> "WorkerError":
        """The error of a worker whose name was taken."""
        return cls(f"another process works as {name} in the group {group}: give each its own instance name")


@dataclass
class _Known:
    """How much of a partition's changelog is in the state."""

    at: int  # the changelog's offset that comes next
    accounted: int | None = None  # the input's
    anew: bool = False  # the input was another topic of the same name


@dataclass
class _Restore:
    """The state of some partitions on its way: first the changelog, then the records just before the position."""

    partitions: set[TopicPartition]
    changelog: Reading
    before: Reading | None = None
    positions: dict[TopicPartition, int] = field(default_factory=dict)
    rows: int = 0
    began: float = field(default_factory=time.monotonic)


class Worker:
    """Runs a stage until told to stop.

    Args:
        stage: What to do with the records; its state belongs to this worker alone.
        config: Settings.
        stop: Set it, and :meth:`run` returns after the batch at hand.
        port: Kafka; by default the cluster of the settings.
    """

    def __init__(self, stage: Stage, config: UpdaterConfig, stop: threading.Event, port: Port | None = None):
        self.stage, self.config, self.stop = stage, config, stop
        self.group = group_name(config, stage.name, stage.bundle.version)
        self.role, self.name = stage.name, f"{stage.name}-{config.instance}"
        self.port = port or _kafka(stage, config, self.group, self.name)
        self.next: dict[TopicPartition, int] = {}
        """Of the partitions whose state is here: the offset that comes next."""
        self._restores: list[_Restore] = []
        self._read: dict[int, _Known] = {}
        """By partition: what restores have read and, of a warm spare, what it has followed since."""
        self._logs: set[TopicPartition] = set()
        """The partitions of the changelog that a warm spare follows where they are not its own."""
        self._identity: tuple[str, int] | None = None
        self._doubtful: set[TopicPartition] = set()
        """Whose last batch was taken over because its offsets are committed: by this worker, if it still is the member
        that it was."""
        self.positions: dict[TopicPartition, int] = {}
        """What has been worked on, marks of transactions included: where Kafka's end is compared with for the lag."""
        self._interruption = ""
        self._ahead: dict[TopicPartition, tuple[int, int]] = {}
        self._settled = False
        self._errors: deque[float] = deque(maxlen=_TROUBLES)
        self._failed_in_a_row = 0

    @property
    def ready(self) -> bool:
        """Whether the state of its partitions is restored, or it has none for now, and it is not in trouble."""
        return self._settled and not self._restores and not self.troubled

    @property
    def troubled(self) -> bool:
        """Whether errors repeat."""
        recent = time.monotonic() - _TROUBLE_S
        return sum(moment > recent for moment in self._errors) >= _TROUBLES

    def run(self) -> None:
        """Work until ``stop`` is set; a broker that goes away is waited for.

        Raises:
            WorkerError: another process runs under the same instance name, or the state cannot be restored.
        """
        metrics.LAST_COMMIT.labels(self.stage.name).set_to_current_time()  # one that never commits is late, too
        pause = 0.1
        while not self.stop.is_set():
            began = time.monotonic()
            try:
                self.session()
            except FencedInstanceIdError as error:
                raise WorkerError.of(self.name, self.group) from error
            except (KafkaError, TransactionError, TimeoutError, OSError) as error:
                lasted = time.monotonic() - began
                pause = 0.1 if lasted > _TROUBLE_S else min(2 * pause, self.config.retry_max_s)
                self._note(error)
                log.warning("worker_interrupted worker=%s error=%r retry_s=%.1f", self.name, error, pause)
                self.stop.wait(pause)

    def interrupt(self, reason: str) -> None:
        """Begin a new session at the next turn; safe from any thread."""
        self._interruption = reason

    def _note(self, error: Exception) -> None:
        self._errors.append(time.monotonic())
        metrics.ERRORS.labels(self.stage.name, type(error).__name__).inc()

    def session(self) -> None:
        """Join the group and work, until told to stop or an error ends it; state is restored afresh every time."""
        try:
            self.begin()
            while not self.stop.is_set():
                self.turn()
        finally:
            self.finish()

    def begin(self) -> None:
        """Nothing is ours yet."""
        self.next, self._restores, self._read, self._identity, self._doubtful = {}, [], {}, None, set()
        self.port.open()
        self.stage.open()
        self._logs = self.port.partitions(self.stage.changelog) if self.config.warm else set()

    def finish(self) -> None:
        self.stage.close()
        self.port.close()

    def turn(self) -> None:
        """Read, see what is still ours, restore what is new, work, commit."""
        if self._interruption:
            reason, self._interruption = self._interruption, ""
            raise TimeoutError(reason)
        self.stage.refresh()
        polled = self.port.poll(0 if self._restores else self.config.poll_ms)
        # From here to the commit it is this member, whatever the client's own thread learns meanwhile.
        member = self.port.member()
        lost, gained = self.port.changes()
        self._drop(lost)
        if member.identity != self._identity:
            self._verify()
            self._identity = member.identity
        self._restore(gained)
        for restore in list(self._restores):
            self._go_on(restore)
        self._follow()
        self._settled = member.stable
        self._work(self._ours([record for batch in polled.values() for record in batch]), member)
        result = self.stage.tick({partition.partition for partition in self.next})
        if result is not None:
            # Nothing was read; but with its offsets, Kafka refuses the transaction of a worker that has been replaced.
            self._commit(result, dict(self.next), member)
        self.positions = {p: max(next_, self.port.position(p)) for p, next_ in self.next.items()} or self.positions

    # -- what is ours ------------------------------------------------------------------------------------------------

    def _drop(self, partitions: set[TopicPartition]) -> None:
        self._doubtful -= partitions
        for partition in partitions:
            self.next.pop(partition, None)
        for restore in self._restores:
            restore.partitions -= partitions
        self._restores = [restore for restore in self._restores if restore.partitions]

    def _verify(self) -> None:
        """Whether anybody worked on a partition of ours since we did: restore those.

        A member that was away too long may get its partitions back without being told that it had lost them.
        """
        committed = self.port.committed(self.next)
        moved = {p for p, next_ in self.next.items() if self._start(p, committed[p]) != next_}
        self._restore(moved | self._doubtful)

    def _start(self, partition: TopicPartition, committed: int | None) -> int:
        return self.stage.start_offset(partition.partition) if committed is None else committed

    def _restore(self, partitions: set[TopicPartition]) -> None:
        """Begin to restore the state of some partitions."""
        if not partitions:
            return
        self._drop(partitions)
        for partition in partitions:
            self.port.pause(partition)
        numbers = {partition.partition for partition in partitions}
        if not self._logs:
            self._read = {number: known for number, known in self._read.items() if number not in numbers}
        logs = [TopicPartition(self.stage.changelog, number) for number in sorted(numbers)]
        reading = self.port.changelog(logs, self._starts(logs), self.stage.bundle.version)
        self._restores.append(_Restore(set(partitions), reading))

    def _follow(self) -> None:
        """Of a warm spare: take over what others have written of their partitions, so that little is left to read when
        they become ours. What cannot be followed is left to the restore, which says what is wrong with it."""
        if self._restores:  # ours come first
            return
        ours = {partition.partition for partition in self.next}
        logs = [log for log in sorted(self._logs) if log.partition not in ours]
        if not logs:
            return
        try:
            for change in self.port.follow(logs, self._starts(logs), self.stage.bundle.version, _RESTORE_S):
                self._take(change)
        except (OffsetOutOfRangeError, UnknownFormat) as error:
            log.warning("not_followed worker=%s error=%r", self.name, error)
            self._logs -= set(logs)
            for left in logs:
                self._read.pop(left.partition, None)

    def _starts(self, logs: list[TopicPartition]) -> dict[TopicPartition, int]:
        """Where to read some partitions of the changelog: behind what is in the state, else where the bundle begins."""
        begins = self.stage.changelog_starts([log.partition for log in logs])
        return {**begins, **{log: self._read[log.partition].at for log in logs if log.partition in self._read}}

    def _take(self, change: Change) -> None:
        if len(change.rows):
            self.stage.restore(change.rows)
        known = self._read.setdefault(change.partition, _Known(0))
        known.at = change.offset + 1
        if change.next and change.source == self.stage.source_id:
            known.accounted = change.next
        elif change.next:
            known.anew = True

    def _go_on(self, restore: _Restore) -> None:
        """Take over what has been read of a restore, and at its end begin to work on its partitions."""
        if restore.before is None:
            for change in restore.changelog.take(_RESTORE_S):
                # One that was lost and came back meanwhile has a restore of its own, which is elsewhere.
                if TopicPartition(self.stage.source, change.partition) in restore.partitions:
                    self._take(change)
                    restore.rows += len(change.rows)
            if not restore.changelog.done:
                return
            # Asked for only now: a transaction that the changelog has waited for may have moved it.
            committed, ends_ = self.port.committed(restore.partitions), self.port.ends(restore.partitions)
            again = set()
            for partition in restore.partitions:
                known, at = self._known(partition, ends_[partition]), committed[partition]
                if at is not None and at > known:
                    self._missing(partition, at, known)
                    self._read.pop(partition.partition, None)  # all of it, though some was followed
                    again.add(partition)
                restore.positions[partition] = known
                self.stage.forget(partition.partition)
            self._restore(again)
            if not restore.partitions:
                return
            window = self.stage.window
            ranges = {
                p: (max(0, at - window), at) for p in restore.partitions if window and (at := restore.positions[p])
            }
            restore.before = self.port.records(ranges)
        for records in restore.before.take(_RESTORE_S):
            self.stage.recall(records)
        if restore.before.done:
            self._restores.remove(restore)
            for partition in restore.partitions:
                position = restore.positions[partition]
                self._ahead.pop(partition, None)
                if self.port.resume(partition, position):
                    self.next[partition] = position
            seconds = time.monotonic() - restore.began
            metrics.RESTORE.labels(self.stage.name).observe(seconds)
            names = sorted(partition.partition for partition in restore.partitions)
            log.info("restored worker=%s partitions=%s rows=%d s=%.1f", self.name, names, restore.rows, seconds)

    def _known(self, partition: TopicPartition, end: int) -> int:
        """Where to read on: behind what the changelog accounts for, else at the bundle's cut.

        A topic that was made anew is read from its beginning; one that ends before the cut was, too.
        """
        start, read = self.stage.start_offset(partition.partition), self._read.get(partition.partition, _Known(0))
        if read.accounted is not None:
            return read.accounted
        return 0 if read.anew or start > end else start

    def _missing(self, partition: TopicPartition, committed: int, known: int) -> None:
        """The group is ahead of what was restored: somebody worked on meanwhile, or records of the changelog are gone.

        Raises:
            WorkerError: it is the same when it is restored again, so they are gone.
        """
        if self._ahead.get(partition) == (committed, known):
            raise WorkerError(
                f"the group {self.group} has read {partition.topic}-{partition.partition} up to {committed}, and the "
                f"bundle and its changelog account for {known}: records of {self.stage.changelog} are gone. Put "
                "another bundle into service, or publish this one again under another name"
            )
        self._ahead[partition] = committed, known

    # -- the work ----------------------------------------------------------------------------------------------------

    def _work(self, records: list, member: Member) -> None:
        """Process records in one transaction; if they cannot be, in halves, until the one that cannot is set aside."""
        if not records:
            return
        with linked(f"fold {self.stage.name}", records, self._told(records)):
            self._fold(records, member)

    def _told(self, records: list) -> dict[str, str | int]:
        """What a trace says of a batch, in OpenTelemetry's words for messages where it has some."""
        return {
            "messaging.system": "kafka",
            "messaging.destination.name": self.stage.source,
            "messaging.consumer.group.name": self.group,
            "messaging.batch.message_count": len(records),
            "dat.bundle": self.stage.bundle.version,
        }

    def _fold(self, records: list, member: Member) -> None:
        source = self.stage.source
        offsets = {TopicPartition(source, p): offset for p, offset in ends(records).items()}
        try:
            with metrics.BATCH.labels(self.stage.name).time():
                result = self.stage.process(records)
        except (KafkaError, TimeoutError, OSError, UnknownFormat):
            raise
        except Exception as error:  # whatever it is, one record must not stop the others
            if len(records) > 1:
                middle = len(records) // 2
                self._work(records[:middle], member)
                self._work(self._ours(records[middle:]), member)
                return
            result = self._set_aside(records[0], error)
        else:
            self._failed_in_a_row = 0
        self._commit(result, offsets, member)

    def _ours(self, records: list) -> list:
        """Those of some records that come next in their partitions."""
        starts = {partition.partition: offset for partition, offset in self.next.items()}
        return [r for r in records if (start := starts.get(r.partition)) is not None and r.offset >= start]

    def _set_aside(self, record: Any, error: Exception) -> BatchResult:
        self._failed_in_a_row += 1
        self._note(error)
        where = f"{record.topic}-{record.partition} at {record.offset}"
        log.error("record_set_aside worker=%s record=%s error=%r", self.name, where, error)
        if self._failed_in_a_row > _SET_ASIDE:
            raise WorkerError(f"{_SET_ASIDE} records in a row could not be processed, up to {where}") from error
        return self.stage.set_aside(Rejected.of(record, "error", f"error: {error!r}"[:1_000]))

    def _commit(self, result: BatchResult, offsets: dict[TopicPartition, int], member: Member) -> None:
        try:
            with metrics.COMMIT.labels(self.stage.name).time():
                self.port.commit(result.messages, offsets, member)
        except TransactionError as error:
            metrics.FAILED.labels(self.stage.name).inc()
            log.warning("transaction_failed worker=%s error=%s", self.name, error)
            if isinstance(error.__cause__, FencedInstanceIdError):
                raise error.__cause__ from error
            self._recover(result, offsets)
        else:
            self._done(result, offsets)
            self._doubtful.clear()  # Kafka took this commit for the member's, so nobody else had its partitions

    def _recover(self, result: BatchResult, offsets: dict[TopicPartition, int]) -> None:
        """After a failed transaction: ask Kafka whether it was committed, then take it over or do it again."""
        self.port.renew()  # ends whatever was open, so that the committed offsets are final
        committed = {p: self._start(p, at) for p, at in self.port.committed(offsets).items()}
        before = {p: self.next[p] for p in offsets}
        if committed == before:
            for partition in offsets:
                self._resume(partition)
        elif committed == offsets:
            self._done(result, offsets)
            self._doubtful |= set(offsets)
        else:
            self._restore(set(offsets))

    def _resume(self, partition: TopicPartition) -> None:
        if not self.port.resume(partition, self.next[partition]):
            self._drop({partition})

    def _done(self, result: BatchResult, offsets: dict[TopicPartition, int]) -> None:
        self.stage.apply(result)
        self.next.update(offsets)
        stage, now = self.stage.name, time.time()
        metrics.LAST_COMMIT.labels(stage).set(now)
        metrics.CLICKS.labels(stage).inc(result.clicks)
        metrics.REPEATED.inc(result.repeated)
        metrics.UNCOUNTED.inc(result.uncounted)
        for kind in result.rejected:
            metrics.REJECTED.labels(kind).inc()
        if result.rejected:
            log.warning("records_rejected worker=%s count=%d", self.name, len(result.rejected))
        if result.arrived:
            metrics.LAST_FOLDED.labels(stage).set(result.arrived / 1000)
            metrics.FRESHNESS.labels(stage).observe(max(0.0, now - result.arrived / 1000))


def _kafka(stage: Stage, config: UpdaterConfig, group: str, name: str) -> KafkaPort:
    linger = {"fetch_min_bytes": 1 << 16, "fetch_max_wait_ms": stage.linger_ms} if stage.linger_ms else {}
    return KafkaPort(
        config, group, stage.source, name, max_poll_records=stage.batch_records, max_partition_fetch_bytes=4 << 20,
        **linger,
    )  # fmt: skip
