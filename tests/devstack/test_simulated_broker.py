"""The simulated broker answers the port's calls as a real one does: the same calls on both, the same observations."""

import time
from collections.abc import Callable
from random import Random

import pytest
from kafka import KafkaProducer, TopicPartition
from kafka.errors import KafkaError

from devstack.simulation.broker import Cluster
from devstack.simulation.port import Faults, SimulatedPort
from streaming.kafka.port import KafkaPort, Port
from streaming.kafka.transactions import Message, TransactionError
from tests.conftest import PARTITIONS
from tests.streaming.loop import updater_config

GROUP = "differential"


class Simulated:
    """Ports to a cluster in memory."""

    def __init__(self, kafka):
        self.topics = kafka.topics
        self.cluster = Cluster(Random(0), dict.fromkeys((kafka.topics.clicks, kafka.topics.item_signals), PARTITIONS))

    def port(self, name: str) -> Port:
        faults = Faults(Random(0), lambda steps: self.cluster.pass_time(steps))
        faults.on = False
        return SimulatedPort(self.cluster, faults, Random(0), GROUP, (self.topics.clicks,), name, 100)

    def write(self, partition: int, value: bytes) -> None:
        self.cluster.append(self.topics.clicks, partition, value)


class Real:
    """Ports to a real broker."""

    def __init__(self, kafka):
        self.kafka, self.topics = kafka, kafka.topics
        self.producer = KafkaProducer(**kafka.client)

    def port(self, name: str) -> Port:
        config = updater_config(self.kafka, instance=name, session_timeout_ms=6_000)
        return KafkaPort(config, f"{self.kafka.prefix}{GROUP}", self.topics.clicks, name)

    def write(self, partition: int, value: bytes) -> None:
        self.producer.send(self.topics.clicks, value, partition=partition).get(10)


class Member:
    """A port, with what it owns and has read."""

    def __init__(self, port: Port):
        self.port, self.owned, self.read = port, set(), []
        until(lambda: outcome(port.open) == "done")  # topics that were made just now have no leaders yet

    def poll(self) -> None:
        for partition, records in self.port.poll(50).items():
            self.read += [(partition.partition, record.value) for record in records]
        lost, gained = self.port.changes()
        self.owned = (self.owned - lost) | gained
        for partition in gained:
            self.port.resume(partition, self.port.committed([partition])[partition] or 0)


def until(true: Callable[[], bool], *members: Member) -> None:
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline
        for member in members:
            member.poll()


def outputs(side, port: Port) -> list[bytes]:
    """The committed records of the output topic."""
    partitions = [TopicPartition(side.topics.item_signals, p) for p in range(PARTITIONS)]
    reading, values = port.records(dict.fromkeys(partitions, (0, 1000))), []
    while not reading.done:
        values += [record.value for records in reading.take(1) for record in records]
    return sorted(values)


def committed(member: Member, side) -> dict[int, int | None]:
    partitions = [TopicPartition(side.topics.clicks, p) for p in range(PARTITIONS)]
    return {p.partition: offset for p, offset in member.port.committed(partitions).items()}


def outcome(act: Callable[[], None]) -> str:
    try:
        act()
    except (TransactionError, KafkaError) as error:
        return type(error).__name__
    return "done"


def commits_and_aborts(side) -> list:
    side.write(0, b"c0"), side.write(1, b"c1")
    a = Member(side.port("a"))
    until(lambda: len(a.read) == 2, a)
    seen: list = [sorted(a.read), committed(a, side)]
    first = {TopicPartition(side.topics.clicks, 0): 1}
    seen.append(outcome(lambda: a.port.commit([Message(side.topics.item_signals, 0, b"o0")], first, a.port.member())))
    seen += [outputs(side, a.port), committed(a, side)]
    stale = a.port.member()
    old = stale._replace(generation=stale.generation - 1, group=_older(stale.group))
    seen.append(outcome(lambda: a.port.commit([Message(side.topics.item_signals, 1, b"stale")], first, old)))
    a.port.renew()
    seen += [outputs(side, a.port), committed(a, side)]
    second = {TopicPartition(side.topics.clicks, 1): 1}
    seen.append(outcome(lambda: a.port.commit([Message(side.topics.item_signals, 1, b"o1")], second, a.port.member())))
    seen += [outputs(side, a.port), committed(a, side)]
    a.port.close()
    return seen


def _older(group):
    return group and group._replace(generation_id=group.generation_id - 1)


def a_second_of_the_same_name_fences_the_first(side) -> list:
    side.write(0, b"c0")
    a = Member(side.port("a"))
    until(lambda: len(a.owned) == PARTITIONS, a)
    member, first = a.port.member(), {TopicPartition(side.topics.clicks, 0): 1}
    again = side.port("a")
    again.open()
    seen = [outcome(lambda: a.port.commit([Message(side.topics.item_signals, 0, b"late")], first, member))]
    seen += [outputs(side, again)]
    again.close()
    return seen


def partitions_move_to_a_joiner(side) -> list:
    a = Member(side.port("a"))
    until(lambda: len(a.owned) == PARTITIONS, a)
    seen: list = [len(a.owned)]
    before = a.port.member()
    b = Member(side.port("b"))
    until(lambda: len(a.owned) == len(b.owned) == 1, a, b)
    seen += [a.owned | b.owned == {TopicPartition(side.topics.clicks, p) for p in range(PARTITIONS)}]
    seen += [a.port.member().member == before.member, a.port.member().generation > before.generation]
    lost = next(iter(b.owned))
    side.write(lost.partition, b"for b")
    until(lambda: bool(b.read), a, b)
    seen += [[value for _, value in b.read], a.read]
    # What the loser commits as the member that it was is refused.
    late = Message(side.topics.item_signals, 0, b"late")
    seen.append(outcome(lambda: a.port.commit([late], {lost: 1}, before)))
    seen.append(outputs(side, b.port))
    a.port.close(), b.port.close()
    return seen


@pytest.mark.parametrize(
    "script", [commits_and_aborts, a_second_of_the_same_name_fences_the_first, partitions_move_to_a_joiner]
)
def test_the_same_calls_have_the_same_answers_on_both(kafka, script):
    assert script(Simulated(kafka)) == script(Real(kafka))
