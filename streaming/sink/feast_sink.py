"""The Feast sink: what the stages have committed, into the online store.

It follows the changelogs behind the stages, so an online store that is slow or away delays nobody. Values are absolute:
after an outage, or a crash between a write and its offsets, it writes some of them again, to no effect.

Another bundle's rows are all written anew, which takes minutes where there are a million. Clicks do not wait for that:
what was clicked since the cut comes first, and from then on new clicks go before the rest of the bundle.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from kafka import TopicPartition
from kafka.errors import FencedInstanceIdError, KafkaError

from feature_repo.rows_format import FORMAT
from model.bundle import Bundle
from model.settings.updater import UpdaterConfig
from model.tracing import Attributes, linked
from streaming import metrics
from streaming.kafka.changelog import Change
from streaming.kafka.offsets import sink_group, texts
from streaming.kafka.partitioner import RowPartitions
from streaming.kafka.topics import described
from streaming.sink.online_writer import OnlineWriter
from streaming.sink.port import KafkaSinkPort, Place, Polled, SinkPort
from streaming.sink.rows import STAMP, compacted, latest, seeds, slices, stamped, with_stamps
from streaming.worker import WorkerError

if TYPE_CHECKING:
    from feast import FeatureStore

log = logging.getLogger(__name__)
_TAKE_OVER_S = 1_800
"""How long the group waits for a sink that writes what was clicked since the cut; Kafka's default of five minutes is
too short for a million ids, and a sink that is put out of its group begins anew, for ever."""


class _Mark(NamedTuple):
    """What the sinks' group keeps beside a partition's offset: whose rows the store has, and their stamps' base.

    A row of the changelog has the stamp base + its offset + 1, one of the bundle the base itself. Whoever takes a
    partition over writes a higher base into Kafka before it writes a row, and Kafka refuses that of a member that was
    replaced: hence rows of an earlier time are older for the store, whatever the hosts' clocks say.
    """

    bundle: str
    base: int
    whole: bool
    format: int
    """Of the rows: where another release wrote them in another, they are written anew."""

    @classmethod
    def of(cls, metadata: str) -> "_Mark":
        bundle, base, whole, number, *_ = [*metadata.split(" "), "", "", ""]
        return cls(bundle, int(base or 0), whole == "whole", int(number or 1))

    @property
    def text(self) -> str:
        return f"{self.bundle} {self.base} {'whole' if self.whole else 'begun'} {self.format}"

    def holds(self, bundle: str) -> bool:
        """Whether all rows of a partition are a bundle's, as this release writes them."""
        return self.bundle == bundle and self.whole and self.format == FORMAT


class FeastSink:
    """Keeps the online store's activity, augmented vectors and histories up to the stream, until told to stop.

    There is one group whatever the bundle, so that a partition's rows have one writer. Its offsets name the bundle that
    wrote last: a partition that is another bundle's is written anew, every id of it, before it is followed.

    Args:
        port, writer: Kafka and the online store; by default those of the settings.
        clock: This host's, in seconds.
    """

    def __init__(
        self, bundle: Bundle, store: "FeatureStore", config: UpdaterConfig, stop: threading.Event,
        name: str = "feast", port: SinkPort | None = None, writer: OnlineWriter | None = None,
        clock: Callable[[], float] = time.time,
    ):  # fmt: skip
        self.bundle, self.config, self.stop = bundle, config, stop
        self.group = sink_group(config)
        # In the order of taking over: answers read queries.
        self._sides = {config.topics.query_vectors: "query", config.topics.item_vectors: "item"}
        self.role, self.name = "feast", f"{name}-{config.instance}"
        self.ready = False
        """Whether the store has all rows of its partitions, or it has none for now."""
        self._clock = clock
        self.port = port or KafkaSinkPort(config, bundle.version, self.name, 1000 * _TAKE_OVER_S)
        self._writer = writer or OnlineWriter(store, bundle.version)
        self.positions: dict[TopicPartition, int] = {}
        """What has been written: where Kafka's end is compared with for the lag."""
        self._interruption = ""
        self._new: set[TopicPartition] = set()  # to be taken over
        self._ours: set[TopicPartition] = set()  # followed
        self._rests: dict[TopicPartition, Iterator[pa.RecordBatch]] = {}  # what the bundle still has of a partition
        self._marks: dict[TopicPartition, _Mark] = {}
        self._looked = time.monotonic()
        self._homes: dict[str, RowPartitions] = {}

    def run(self) -> None:
        """Follow until ``stop`` is set.

        Raises:
            WorkerError: another process runs under the same instance name.
        """
        metrics.LAST_COMMIT.labels(self.role).set_to_current_time()
        while not self.stop.is_set():
            try:
                self.session()
            except FencedInstanceIdError as error:
                raise WorkerError.of(self.name, self.group) from error
            except (KafkaError, TimeoutError, OSError) as error:
                log.warning("sink_interrupted sink=%s error=%r", self.name, error)
                self.stop.wait(1)

    def interrupt(self, reason: str) -> None:
        """Begin a new session at the next turn; safe from any thread."""
        self._interruption = reason

    def session(self) -> None:
        """Join the group and follow, until told to stop or an error ends it."""
        try:
            self.begin()
            while not self.stop.is_set():
                self.turn()
        finally:
            self.finish()

    def begin(self) -> None:
        """Nothing is ours yet."""
        self._rests, self._new, self._ours = {}, set(), set()
        self.port.open()

    def finish(self) -> None:
        self.port.close()

    def turn(self) -> None:
        """Read, write what is ours, and take over what is new or go on with it."""
        if self._interruption:
            reason, self._interruption = self._interruption, ""
            raise TimeoutError(reason)
        busy = self._rests or self._new
        polled = self.port.poll(0 if busy else self.config.poll_ms)
        lost, gained = self.port.changes()
        self._ours -= lost | gained
        self._new = (self._new - lost) | gained
        batches = {p: batch for p, batch in polled.items() if p in self._ours}
        if batches:
            self._follow(batches)
        if self._new:
            self._prepare(min(self._new, key=self._order))
        elif self._rests:
            self._go_on(min(self._rests, key=self._order))
        else:
            self._look_at_markers()
        self.positions = {p: self.port.position(p) for p in self._ours} or self.positions
        self.ready = not self._new and not self._rests and (bool(self._ours) or self.port.settled)

    def _order(self, partition: TopicPartition) -> tuple[int, int]:
        return list(self._sides).index(partition.topic), partition.partition

    def _prepare(self, partition: TopicPartition) -> None:
        """Make a new partition ready to be followed."""
        self._rests.pop(partition, None)
        committed = self.port.committed(partition)
        mark = _Mark.of(committed.text if committed else "")
        if committed and mark.holds(self.bundle.version) and self._marker_ok(partition, mark):
            self._marks[partition], start = mark, committed.offset
        else:
            start = self._take_over(partition, mark, committed.offset if committed else 0)
        self._new.discard(partition)
        if self.stop.is_set() or not self.port.owns(partition):
            return
        self._ours.add(partition)
        self.port.resume(partition, start)

    def _take_over(self, partition: TopicPartition, before: _Mark, offset: int) -> int:
        """Write what was clicked of a partition's ids since the cut; what is left is the bundle's.

        In this order, since whoever waits for a click would take the bundle's row for news; the store itself refuses a
        bundle's row where it has the changelog's.

        Returns:
            Where to follow the partition from.
        """
        topic, side, size = partition.topic, self._sides[partition.topic], self.config.sink_rows
        end = self.port.end(partition)
        # Above what the store has, too: a sink whose clock is ahead may have written to it after it was replaced, and
        # the store would refuse all that has a lower stamp.
        least = max(before.base, self._stored_base(partition) or 0) + end + 2
        mark = _Mark(self.bundle.version, max(int(1e6 * self._clock()), least), False, FORMAT)
        self._marks[partition] = mark
        self._commit({partition: offset})
        # Before the rows: a store that is emptied among them is found out.
        if not self._insist(lambda: self._writer.write_marker(marker(partition), mark.base), 1):
            return end
        read: dict[int, Change] = {}
        rows = compacted(stamped(_noting(self.port.changelog(partition), read), mark.base))
        for part in slices(rows, size):
            if not self._write(side, part):
                break
        else:
            self._tell(topic, read)
        partitioner = self.config.partitioner if side == "query" else "murmur2"
        homes = self._homes.setdefault(topic, RowPartitions(self.port.count(topic), partitioner))
        self._rests[partition] = seeds(self.bundle, side, partition.partition, homes, size)
        return end

    def _go_on(self, partition: TopicPartition) -> None:
        """Write the next rows of what is left; after the last the partition's offset names this bundle."""
        mark = self._marks[partition]
        if partition not in self._ours:  # another sink has it now
            del self._rests[partition]
        elif (batch := next(self._rests[partition], None)) is None:
            del self._rests[partition]
            self._marks[partition] = mark._replace(whole=True)
            self._commit({partition: self.port.position(partition)})
        else:
            self._write(self._sides[partition.topic], with_stamps(batch, np.full(len(batch), mark.base)), seeds=True)

    def _follow(self, batches: dict[TopicPartition, Polled]) -> None:
        for topic, side in self._sides.items():
            read: dict[int, Change] = {}
            polled = {p: batch.changes for p, batch in batches.items() if p.topic == topic}
            tables = [
                row
                for partition, found in polled.items()
                for row in stamped(_noting(found, read), self._marks[partition].base)
            ]
            changes = [change for found in polled.values() for change in found if not change.drift]
            for part in slices(latest(tables), self.config.sink_rows):
                if not self._write(side, part, changes=changes):
                    return
            self._tell(topic, read)
        self._commit({p: batch.next for p, batch in batches.items() if p not in self._rests})

    # -- the store's marker: written before a partition's rows, it is gone when the store has lost some of them --------

    def _stored_base(self, partition: TopicPartition) -> int | None:
        """The base that the store's marker has, 0 without one; None: the store is away."""
        try:
            return self._writer.read_marker(marker(partition)) or 0
        except Exception as error:  # the online stores raise their drivers' own errors
            log.warning("online_store_unavailable marker=%s error=%r", partition, error)
            return None

    def _marker_ok(self, partition: TopicPartition, mark: _Mark) -> bool:
        """Whether the store has the marker of this partition; a store that is away counts as one that has."""
        base = self._stored_base(partition)
        if base is None:
            return True
        metrics.MARKER_OK.set(base == mark.base)
        return base == mark.base

    def _look_at_markers(self) -> None:
        """Write a partition anew whose marker is gone, as after a Redis came back empty, or ``dat online --refill``."""
        if time.monotonic() - self._looked < self.config.monitor_s:
            return
        self._looked = time.monotonic()
        for partition in self._ours - self._rests.keys():
            if not self._marker_ok(partition, self._marks[partition]):
                log.warning("online_store_emptied partition=%s: its rows are written anew", partition)
                self._ours.discard(partition)
                self._new.add(partition)
                self.port.pause(partition)

    def _commit(self, offsets: dict[TopicPartition, int]) -> None:
        if offsets:
            self.port.commit({p: Place(offset, self._marks[p].text) for p, offset in offsets.items()})

    def _tell(self, topic: str, read: dict[int, Change]) -> None:
        """Write up to where a partition's clicks count in the store: answers that wait for a click look there."""
        for partition, change in read.items() if topic == self.config.topics.query_vectors else ():
            stamp = self._marks[TopicPartition(topic, partition)].base + change.offset + 1
            write = partial(self._writer.write_progress, partition, change.next, stamp)
            self._insist(write, 1)

    def _write(
        self, side: str, rows: pa.RecordBatch, seeds: bool = False, changes: Sequence[Change] = ()
    ) -> bool:  # fmt: skip
        """Write until it succeeds; False if told to stop before.

        Args:
            seeds: The rows are the bundle's, not the changelog's.
            changes: What they were read from: a trace leads to their folds.
        """
        told: Attributes = {"dat.rows": len(rows), "dat.bundle": self.bundle.version}
        with linked(f"write {side}", changes, told):
            return self._put(side, rows, seeds)

    def _put(self, side: str, rows: pa.RecordBatch, seeds: bool) -> bool:
        """A query of the changelog without clicks was forgotten: its row is cleared."""
        gone = pc.equal(rows["clicks"], 0) if side == "query" and not seeds else None
        if gone is not None and pc.any(gone).as_py():
            cleared, rows = rows.filter(gone), rows.filter(pc.invert(gone))
            ids, at = cleared["id"].to_pylist(), cleared[STAMP].to_numpy(zero_copy_only=False)
            if not self._insist(lambda: self._writer.clear(side, ids, at), len(ids)):
                return False
        stamps = rows[STAMP].to_numpy(zero_copy_only=False)
        return not len(rows) or self._insist(lambda: self._writer.write(side, rows, stamps), len(rows))

    def _insist(self, write: Callable[[], None], rows: int) -> bool:
        pause = 0.1
        while True:
            try:
                write()
            except Exception as error:  # the online stores raise their drivers' own errors
                log.warning("online_store_unavailable rows=%d error=%r retry_s=%.1f", rows, error, pause)
                metrics.ONLINE_FAILED.inc()
                if self.stop.wait(pause):
                    return False
                pause = min(2 * pause, self.config.retry_max_s)
            else:
                metrics.ONLINE_ROWS.inc(rows)
                metrics.LAST_ONLINE.set_to_current_time()
                metrics.LAST_COMMIT.labels(self.role).set_to_current_time()
                return True


def marker(partition: TopicPartition) -> str:
    """The id of the row that is there as long as the store has lost no row of a partition."""
    return f"dat-marker {partition.topic}-{partition.partition}"


def refill(store: "FeatureStore", config: UpdaterConfig) -> int:
    """Make the sinks that run write all rows anew, within seconds; returns how many partitions that is.

    Raises:
        Exception: whatever the store's driver raises.
    """
    writer, partitions = OnlineWriter(store, "refill"), _partitions(config)
    for partition in partitions:
        if base := writer.read_marker(marker(partition)):
            writer.write_marker(marker(partition), base + 1)  # newer, hence written, and not what any sink expects
    return len(partitions)


def whole(store: "FeatureStore", config: UpdaterConfig) -> tuple[int, int]:
    """Of how many partitions the store has the rows, and how many there are."""
    writer, partitions = OnlineWriter(store, "status"), _partitions(config)
    marks = {p: _Mark.of(text) for p, text in texts(config, sink_group(config)).items()}
    there = [p for p in partitions if p in marks and marks[p].whole]
    return sum(writer.read_marker(marker(p)) == marks[p].base for p in there), len(partitions)


def _partitions(config: UpdaterConfig) -> list[TopicPartition]:
    topics = described(config, [config.topics.query_vectors, config.topics.item_vectors])
    return [TopicPartition(topic, p) for topic, (_, count) in topics.items() for p in range(count)]


def _noting(changes_: Iterable[Change], read: dict[int, Change]) -> Iterator[Change]:
    """The same changes; ``read`` then has the last one of each partition that says how far its input has come."""
    for change in changes_:
        if change.next:
            read[change.partition] = change
        yield change
