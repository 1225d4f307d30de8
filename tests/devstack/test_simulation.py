"""The simulation finds no order of faults in which the product's worker is wrong, and finds those of broken ones."""

import logging

import numpy as np
import pytest
from kafka import TopicPartition

from devstack.simulation.history import History, Violation
from devstack.simulation.port import Read, SimulatedPort
from streaming.sink.feast_sink import FeastSink, marker
from streaming.worker import Worker

pytestmark = pytest.mark.long


@pytest.fixture(autouse=True)
def quiet():
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def first_violation(histories: int, **parts) -> int | None:
    """The seed of the first history that goes wrong."""
    for seed in range(histories):
        try:
            History(seed, **parts).run()
        except Violation:
            return seed
    return None


def test_no_history_of_the_products_worker_is_wrong():
    assert first_violation(150) is None


class TrustsItsMemory(Worker):
    """Goes on after another member id or generation as if nothing had happened."""

    def _verify(self) -> None: ...


class TakesAnyAnswerForItsOwn(Worker):
    """Takes a batch over whose offsets are committed, by whomever."""

    def _recover(self, result, offsets) -> None:
        self.port.renew()
        self._done(result, offsets)


class CommitsOffsetsApart(SimulatedPort):
    """Commits the offsets after the transaction, and not in it."""

    def _send_offsets(self, offsets, member, epoch) -> None: ...

    def commit(self, messages, offsets, member) -> None:
        super().commit(messages, offsets, member)
        self._trouble()
        self.group.offsets.update(offsets)


class KeepsItsEpoch(SimulatedPort):
    """Trusts a transaction of which a request was sent twice."""

    def commit(self, messages, offsets, member) -> None:
        super().commit(messages, offsets, member)
        self._open = True


class ForgetsWhatCameBefore(Worker):
    """Does not read the records before the position again, whose repeats come later."""

    def _go_on(self, restore) -> None:
        window, self.stage.window = self.stage.window, 0
        super()._go_on(restore)
        self.stage.window = window


class ForgetsTheTail(Worker):
    """Takes what it has followed of a partition for all there is, and goes on where the group is."""

    def _restore(self, partitions) -> None:
        super()._restore(partitions)
        if partitions and all(self._followed(partition) for partition in partitions):
            self._restores[-1].changelog = Read(list)

    def _known(self, partition, end) -> int:
        committed = self.port.committed([partition])[partition]
        return super()._known(partition, end) if committed is None or not self._followed(partition) else committed

    def _followed(self, partition) -> bool:
        return bool(self._logs) and partition.partition in self._read


class FollowsFromNow(Worker):
    """Takes its memory for the state as it is at the moment when it learns that a partition is another's."""

    def _drop(self, partitions) -> None:
        super()._drop(partitions)
        for partition in partitions if self._logs else ():
            log = TopicPartition(self.stage.changelog, partition.partition)
            if partition.partition in self._read:
                self._read[partition.partition].at = self.port.cluster.end(log)


class StampsByTheWallClock(FeastSink):
    """Stamps rows with its host's clock."""

    def _put(self, side, rows, seeds) -> bool:
        stamps = np.full(len(rows), int(1e6 * self._clock()))
        return self._insist(lambda: self._writer.write(side, rows, stamps), len(rows))


class TrustsTheStore(FeastSink):
    """Does not look whether the store has lost its rows."""

    def _marker_ok(self, partition, mark) -> bool:
        return True


class WritesItsMarkerLast(FeastSink):
    """Says that the store is whole when the last row is written, whatever has become of the first."""

    def _go_on(self, partition) -> None:
        before = self._rests.get(partition)
        super()._go_on(partition)
        if before is not None and partition not in self._rests and partition in self._ours:
            self._writer._store.rows["marker", marker(partition)] = self._marks[partition].base, (0, 0)


BROKEN = [
    {"worker": TrustsItsMemory},
    {"worker": TakesAnyAnswerForItsOwn},
    {"worker": ForgetsWhatCameBefore},
    {"worker": ForgetsTheTail},
    {"worker": FollowsFromNow},
    {"port": CommitsOffsetsApart},
    {"port": KeepsItsEpoch},
    {"sink": StampsByTheWallClock},
    {"sink": TrustsTheStore},
    {"sink": WritesItsMarkerLast},
]


@pytest.mark.parametrize("parts", BROKEN, ids=lambda parts: next(iter(parts.values())).__name__)
def test_a_broken_worker_is_found_out(parts):
    assert first_violation(1_000, **parts) is not None


def test_a_history_is_a_function_of_its_seed():
    def trace(seed: int) -> list:
        history = History(seed)
        history.run()
        return [len(log) for log in history.cluster.logs.values()] + [history.cluster.now]

    assert trace(7) == trace(7) != trace(8)
