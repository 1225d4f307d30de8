"""The online store, the sinks' port to it and to Kafka, and an index that follows: what is behind the changelogs."""

from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
from kafka import TopicPartition

from devstack.simulation.broker import Cluster, Record
from devstack.simulation.port import Faults, SimulatedPort, change
from streaming.kafka.changelog import Change
from streaming.sink.port import Place, Polled

STATE = pa.schema([("id", pa.string()), ("clicks", pa.int64()), ("chain", pa.int64())])
SIDES = {"query-vectors": "query", "item-vectors": "item"}


class Store:
    """An online store that compares stamps, as Redis does by its script: side and id → stamp and row."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str], tuple[int, tuple[int, int]]] = {}

    def put(self, side: str, key: str, stamp: int, row: tuple[int, int] = (0, 0)) -> None:
        stored = self.rows.get((side, key))
        if stored is None or stored[0] < stamp:
            self.rows[side, key] = stamp, row

    def of(self, side: str) -> dict[str, tuple[int, int]]:
        return {key: row for (of, key), (_, row) in self.rows.items() if of == side}


class Writer:
    """What a sink's process writes with; it may be frozen before any write."""

    def __init__(self, store: Store, faults: Faults, trouble: Callable[[], None]):
        self._store, self._faults, self._trouble = store, faults, trouble

    def write(self, side: str, rows: pa.RecordBatch, stamps: np.ndarray) -> None:
        self._trouble()
        values = zip(*(rows[name].to_pylist() for name in STATE.names), stamps.tolist(), strict=True)
        for key, count, chain, stamp in values:
            self._store.put(side, key, stamp, (count, chain))

    def write_marker(self, name: str, stamp: int) -> None:
        self._trouble()
        self._store.put("marker", name, stamp)

    def read_marker(self, name: str) -> int | None:
        self._trouble()
        stored = self._store.rows.get(("marker", name))
        return stored[0] if stored else None

    def write_progress(self, partition: int, next_: int, stamp: int) -> None:
        self._trouble()
        self._store.put("progress", str(partition), stamp, (next_, 0))


class SimulatedSinkPort(SimulatedPort):
    """A member of the sinks' group: it reads both changelogs, and its offsets have a text beside them."""

    def __init__(self, cluster: Cluster, faults: Faults, random: Random, name: str, limit: int):
        super().__init__(cluster, faults, random, "g-feast", tuple(SIDES), name, limit)

    def open(self) -> None:
        self._reset()

    def poll(self, timeout_ms: int) -> dict[TopicPartition, Polled]:  # type: ignore[override]
        return {
            partition: Polled([_arrow(record, self.cluster.arrow) for record in records], self._positions[partition])
            for partition, records in super().poll(timeout_ms).items()
        }

    @property
    def settled(self) -> bool:
        return self.member().stable

    def owns(self, partition: TopicPartition) -> bool:
        return partition in self._owned

    def committed(self, partition: TopicPartition) -> Place | None:  # type: ignore[override]
        return self._call(lambda: self.group.places.get(partition))

    def commit(self, places: dict[TopicPartition, Place]) -> None:  # type: ignore[override]
        member, generation = self._member or "", self._generation

        def request() -> None:
            self.group.check(member, generation)
            self.group.places.update(places)

        self._call(request)

    def end(self, partition: TopicPartition) -> int:
        return self.cluster.end(partition)

    def changelog(self, partition: TopicPartition) -> Iterator[Change]:  # type: ignore[override]
        end = self.cluster.end(partition, committed=False)
        while self.cluster.end(partition) < end:
            self.faults.interlude(3)  # the product waits for open transactions to end
        for record in self.cluster.fetch(partition, 0)[0]:
            self._trouble()
            if record.offset < end:
                yield _arrow(record, self.cluster.arrow)

    def count(self, topic: str) -> int:
        return sum(partition.topic == topic for partition in self.cluster.logs)


def _arrow(record: Record, known: dict[tuple, Change]) -> Change:
    """A record as the sinks take it, made once."""
    place = record.topic, record.partition, record.offset
    if place not in known:
        known[place] = _made(record)
    return known[place]


def _made(record: Record) -> Change:
    columns = list(zip(*record.value, strict=True)) or [()] * len(STATE)
    rows = pa.record_batch([pa.array(values, f.type) for values, f in zip(columns, STATE, strict=True)], STATE)
    return change(record)._replace(rows=rows, offset=record.offset)


class Index:
    """The service's: it reads all of a topic, keeps the last row of each id, and after a crash reads it anew."""

    def __init__(self, cluster: Cluster, topic: str):
        self._cluster = cluster
        self._positions = {p: 0 for p in cluster.logs if p.topic == topic}
        self.rows: dict[str, Any] = {}

    def read(self, limit: int) -> None:
        for partition, position in self._positions.items():
            records, self._positions[partition] = self._cluster.fetch(partition, position, limit)
            for record in records:
                self.rows.update({key: (count, chain) for key, count, chain in record.value})
