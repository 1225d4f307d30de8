"""The two stages as a worker runs them: records in, a transaction's messages out, state taken over after the commit."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pyarrow as pa

from streaming import item_stage, query_stage
from streaming.changelog import NEXT, Follower, changes
from streaming.clicks import decode
from streaming.config import UpdaterConfig
from streaming.item_vectors import ItemVectors
from streaming.profiles import Profiles
from streaming.state import Rows, SideState
from streaming.topics import CLICKS, DEAD, ITEM_VECTORS, QUERY_VECTORS, SIGNALS_TOPIC, pack
from streaming.transactions import Message
from training.bundle import Bundle

if TYPE_CHECKING:
    from feast import FeatureStore

Array = np.ndarray


@dataclass(frozen=True)
class Outcome:
    """What a batch of records comes to: the messages of its transaction, and the values to take over after it."""

    messages: list[Message]
    new: Rows | None
    clicks: int
    rejected: int = 0


class Stage(Protocol):
    """One stage: ``source`` is its input topic, ``changelog`` the topic that its state is rebuilt from."""

    name: str
    source: str
    changelog: str
    batch_records: int
    state: SideState

    def open(self) -> None:
        """Get ready, before the first partition is restored."""

    def refresh(self) -> None:
        """Take over what others have published since."""

    def start_offset(self, partition: int) -> int:
        """Where to begin in a partition of the source that has never been read for this bundle."""

    def restore(self, rows: pa.RecordBatch) -> None:
        """Take over a record of the changelog."""

    def process(self, records: list[Any]) -> Outcome:
        """Compute; change nothing."""

    def apply(self, outcome: Outcome) -> None:
        """Take over a batch that is committed."""

    def close(self) -> None: ...


class QueryStage:
    """``clicks`` → ``item-signals`` and ``query-vectors``; what is not a click → ``clicks-dead``."""

    name, source, changelog = "query", CLICKS, QUERY_VECTORS

    def __init__(self, bundle: Bundle, store: "FeatureStore", config: UpdaterConfig, signal_partitions: int):
        self.bundle, self.config = bundle, config
        self.batch_records = config.batch_clicks
        query, item = bundle.manifest.query, bundle.manifest.item
        self.state = SideState(bundle.queries, query, Profiles(store, "query", query), "history")
        self.items = ItemVectors(bundle, Profiles(store, "item", item))
        self._signal_partitions = signal_partitions
        self._follower: Follower | None = None

    def open(self) -> None:
        self._follower = Follower(self.config, ITEM_VECTORS, self.bundle.version)
        while not self._follower.caught_up:
            self._take(timeout_ms=50)

    def refresh(self) -> None:
        self._take()

    def _take(self, timeout_ms: int = 0) -> None:
        for rows in self._follower.poll(timeout_ms):
            self.items.update(rows)

    def start_offset(self, partition: int) -> int:
        return self.bundle.manifest.offsets.get(partition, 0)

    def restore(self, rows: pa.RecordBatch) -> None:
        self.state.apply(query_stage.restore(rows, self.state, self.items))

    def process(self, records: list[Any]) -> Outcome:
        clicks, rejects = decode(records, self.config.clock_skew_ms)
        messages = [Message(DEAD, 0, reject.kept, reject.key, reject.headers) for reject in rejects]
        if not len(clicks):
            return Outcome(messages, None, 0, len(rejects))
        step = query_stage.step(clicks, self.state, self.items, self.bundle)
        targets = self.items.partitions(step.items, self._signal_partitions)
        messages += self._messages(
            SIGNALS_TOPIC, targets, lambda chosen: query_stage.signals(step, self.items, chosen), {}
        )
        messages += self._messages(
            QUERY_VECTORS,
            step.partitions,
            lambda chosen: query_stage.changelog(step.new, self.state.ids, self.items.ids, chosen),
            ends(records),
        )
        return Outcome(messages, step.new, len(clicks), len(rejects))

    def _messages(
        self, topic: str, partitions: Array, rows: Callable[[Array], pa.RecordBatch], nexts: dict[int, int]
    ) -> list[Message]:
        return packed(topic, partitions, rows, nexts, self.bundle.version, self.config.record_bytes)

    def apply(self, outcome: Outcome) -> None:
        if outcome.new is not None:
            self.state.apply(outcome.new)

    def close(self) -> None:
        if self._follower is not None:
            self._follower.close()
            self._follower = None


class ItemStage:
    """``item-signals`` → ``item-vectors``."""

    name, source, changelog = "item", SIGNALS_TOPIC, ITEM_VECTORS

    def __init__(self, bundle: Bundle, store: "FeatureStore", config: UpdaterConfig):
        self.bundle, self.config = bundle, config
        self.batch_records = config.batch_records
        self.state = SideState(
            bundle.items, bundle.manifest.item, Profiles(store, "item", bundle.manifest.item), "vectors"
        )

    def open(self) -> None: ...

    def refresh(self) -> None: ...

    def start_offset(self, partition: int) -> int:
        return 0  # signals of other bundles are dropped as they are read

    def restore(self, rows: pa.RecordBatch) -> None:
        self.state.apply(item_stage.restore(rows, self.state))

    def process(self, records: list[Any]) -> Outcome:
        ours = list(changes(records, self.bundle.version))
        dim = self.bundle.manifest.config.tower.output_dim
        signals = item_stage.gather([change.rows for change in ours], [change.partition for change in ours], dim)
        if not len(signals):
            return Outcome([], None, 0)
        step = item_stage.step(signals, self.state, self.bundle)
        messages = packed(
            ITEM_VECTORS,
            step.partitions,
            lambda chosen: item_stage.changelog(step.new, self.state.ids, chosen),
            ends(records),
            self.bundle.version,
            self.config.record_bytes,
        )
        return Outcome(messages, step.new, len(signals))

    def apply(self, outcome: Outcome) -> None:
        if outcome.new is not None:
            self.state.apply(outcome.new)

    def close(self) -> None: ...


def ends(records: list[Any]) -> dict[int, int]:
    """For each partition among some records, in order, the offset after its last one."""
    return {record.partition: record.offset + 1 for record in records}


def packed(
    topic: str,
    partitions: Array,
    rows: Callable[[Array], pa.RecordBatch],
    nexts: dict[int, int],
    bundle: str,
    limit: int,
) -> list[Message]:
    """Messages that hold rows 0…N−1 of something, each row in its partition [N], none longer than ``limit`` bytes.

    A single row that is longer is sent as it is: ids are bounded, so it cannot outgrow what a broker takes.
    """

    def split(chosen: Array) -> Iterator[bytes]:
        value = pack(rows(chosen), bundle)
        if len(value) <= limit or len(chosen) == 1:
            yield value
        else:
            middle = len(chosen) // 2
            yield from split(chosen[:middle])
            yield from split(chosen[middle:])

    messages = []
    for partition in np.unique(partitions).tolist():
        headers = [(NEXT, str(nexts[partition]).encode())] if partition in nexts else []
        for value in split(np.flatnonzero(partitions == partition)):
            messages.append(Message(topic, partition, value, None, headers))
    return messages
