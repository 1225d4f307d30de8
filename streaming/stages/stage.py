"""The two stages as a worker runs them: records in, a transaction's messages out, state taken over after the commit."""

import logging
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from kafka import TopicPartition

from model.bundle import Bundle
from model.click import ClickValidator
from model.folds import drifted
from model.forgetting import Listed, remembered, take
from model.settings.updater import UpdaterConfig
from streaming.clicks import Clicks, Rejected, decode
from streaming.dismissals import dismissals
from streaming.forgetting import ForgottenReader
from streaming.kafka.changelog import DRIFT, NEXT, Changelog, split
from streaming.kafka.offsets import Offsets
from streaming.kafka.packing import Headers, Packer, arrived_header, drift_header, ends, next_header, next_value
from streaming.kafka.partitioner import RowPartitions
from streaming.kafka.records import ITEM_STATE, QUERY_STATE, pack
from streaming.kafka.topics import described
from streaming.kafka.transactions import Message
from streaming.stages import item_stage, query_stage
from streaming.stages.arrow import flat
from streaming.stages.batch import BatchResult, Stage
from streaming.stages.duplicates import DuplicateFilter
from streaming.stages.item_readings import ItemReadings
from streaming.stages.profiles import NewProfiles, Profiles

if TYPE_CHECKING:
    from feast import FeatureStore

Array = np.ndarray
log = logging.getLogger(__name__)


def changelog_starts(topic: str, partitions: list[int], starts: Offsets) -> Offsets:
    """Those of a bundle's starts that are of some partitions of a topic."""
    logs = [TopicPartition(topic, partition) for partition in partitions]
    return {partition: starts[partition] for partition in logs if partition in starts}


def account(stage: Stage, nexts: dict[int, int]) -> list[Message]:
    """Changelog records without rows: they say that the input is accounted for up to these offsets (partition → next).

    Without them a batch that changes nothing would move the group's offsets past all that the changelog knows, as the
    loss of changelog records does.
    """
    nothing = pack(pa.RecordBatch.from_pylist([], stage.state_schema), stage.bundle.version)
    return [
        Message(stage.changelog, partition, nothing, None, [(NEXT, next_value(offset, stage.source_id)), (DRIFT, b"")])
        for partition, offset in nexts.items()
    ]


def set_aside(stage: Stage, rejected: Rejected) -> BatchResult:
    """A dead letter in the place of a record that cannot be processed."""
    letter = Message(stage.config.topics.dead_letters, 0, rejected.kept, rejected.key, rejected.headers)
    messages = [letter, *account(stage, {rejected.partition: rejected.offset + 1})]
    return BatchResult(messages, None, 0, (rejected.kind,))


def finite(**values: Array) -> None:
    """Let no number through that is not finite: folded into an average, it would stay there for good.

    Raises:
        ValueError: one is not; the worker then sets aside the record that it comes from.
    """
    for name, array in values.items():
        if not np.isfinite(array).all():
            raise ValueError(f"{name} would not be finite")


class QueryStage:
    """``clicks`` → ``item-signals`` and ``query-vectors``; what is not a click → ``clicks-dead``."""

    name, state_schema = "query", QUERY_STATE

    def __init__(
        self, bundle: Bundle, store: "FeatureStore", config: UpdaterConfig, signal_partitions: int, starts: Offsets
    ):
        self.bundle, self.config, self._starts = bundle, config, starts
        self.batch_records, self.linger_ms = config.batch_clicks, config.linger_ms
        self.source, self.changelog = config.topics.clicks, config.topics.query_vectors
        query, item = bundle.manifest.query, bundle.manifest.item
        self.state, self._profiles = bundle.queries.copy(), NewProfiles(Profiles(store, "query", query))
        self.items = ItemReadings(bundle, Profiles(store, "item", item))
        self._partitions = RowPartitions(signal_partitions)
        self._pack = Packer(bundle.version, config.record_bytes)
        self._duplicates = DuplicateFilter(config.duplicate_window)
        self._item_vectors: Changelog | None = None
        self._list: ForgottenReader | None = None
        self._dismissed = 0
        """Partitions of the topic of dismissals; 0: there is none."""
        self._forgotten: Listed = {}

    def open(self) -> None:
        topics = described(self.config, [self.source, self.config.topics.dismissed])
        self.source_id, count = topics[self.source]
        _, self._dismissed = topics.get(self.config.topics.dismissed, ("", 0))
        if not self._dismissed:
            log.warning("no_topic topic=%s: create it to leave dismissed items out", self.config.topics.dismissed)
        self._validate = ClickValidator(count, self.config.clock_skew_ms, self.config.partitioner)
        self._list = ForgottenReader(self.config)
        take(self._forgotten, self._list.known)
        if not self.items.moving:
            return
        self._item_vectors = Changelog(self.config, self.config.topics.item_vectors, self.bundle.version, self._starts)
        while not self._item_vectors.caught_up:
            self._take(timeout_ms=50)

    def refresh(self) -> None:
        self._take()
        if self._list is not None:
            self._list.poll()
            take(self._forgotten, self._list.known)

    def _take(self, timeout_ms: int = 0) -> None:
        for rows in self._item_vectors.poll(timeout_ms) if self._item_vectors else ():
            finite_rows = np.isfinite(flat(rows["vector"], self.bundle.items.vectors.shape[1])).all(axis=1)
            self.items.update(rows if finite_rows.all() else rows.filter(pa.array(finite_rows)))

    def start_offset(self, partition: int) -> int:
        return self.bundle.manifest.offsets.get(partition, 0)

    def changelog_starts(self, partitions: list[int]) -> Offsets:
        return changelog_starts(self.changelog, partitions, self._starts)

    def restore(self, rows: pa.RecordBatch) -> None:
        query_stage.restore(rows, self.state, self.items).apply(self.state)

    def process(self, records: list[Any]) -> BatchResult:
        read, rejects, forgotten = decode(records, self._validate, self.bundle.manifest.rule)
        # Before the batch is committed: what was known of them counts for nobody who reads on from here.
        self.state.forget(forgotten)
        take(self._forgotten, forgotten)
        repeats = self._duplicates.repeats(read)  # of all events, as in the lake: the first of an id is what it is
        kept = remembered(self._forgotten, read.query_ids, read.times, read.partitions, read.offsets)
        counted, against = (~repeats & kept & chosen for chosen in (read.weights > 0, read.weights < 0))
        clicks, repeated = read.keep(counted), int(repeats.sum())
        uncounted = len(read) - repeated - len(clicks)
        dead = self.config.topics.dead_letters
        messages = [Message(dead, 0, reject.kept, reject.key, reject.headers) for reject in rejects]
        messages += self._dismissals(read, against, counted)
        kinds = tuple(reject.kind for reject in rejects)
        gone = {id_: one.partition or 0 for id_, one in forgotten.items()}
        for id_ in clicks.query_ids if gone else ():
            gone.pop(id_, None)  # it has come again since
        if not len(clicks) and not gone:
            messages += account(self, ends(records))
            return BatchResult(messages, None, 0, kinds, repeated, uncounted, read)
        arrived = min(record.timestamp for record in records)
        update, partitions = query_stage.empty(self.state, gone)
        if len(clicks):
            step = query_stage.step(clicks, self.state, self._profiles, self.items, self.bundle)
            finite(query_vectors=step.vectors, augmented_vectors=step.update.a)
            update = query_stage.joined(step.update, update)
            partitions = np.concatenate([step.partitions, partitions])
            messages += self._pack(
                self.config.topics.item_signals,
                self._partitions(step.items, self.items.ids),
                lambda chosen: query_stage.signals(step, self.items, chosen),
                arrived_header(arrived),
            )
        messages += self._pack(
            self.changelog,
            partitions,
            lambda chosen: query_stage.changelog(update, self.state.ids, self.items.ids, chosen),
            next_header(records, arrived, self.source_id),
        )
        told = set(partitions.tolist())
        messages += account(self, {p: offset for p, offset in ends(records).items() if p not in told})
        return BatchResult(messages, update, len(clicks), kinds, repeated, uncounted, read, arrived)

    def _dismissals(self, events: Clicks, against: Array, counted: Array) -> list[Message]:
        def clicks_of(query_id: str) -> int:
            row = int(self.state.rows([query_id])[0])
            return int(self.state.clicks[row]) if row >= 0 else 0

        topic = self.config.topics.dismissed
        return [
            Message(topic, one.partition % self._dismissed, one.as_json(), query_id.encode())
            for query_id, one in (dismissals(events, against, counted, clicks_of) if self._dismissed else ())
        ]

    @property
    def window(self) -> int:
        return self._duplicates.window

    def forget(self, partition: int) -> None:
        self._duplicates.forget(partition)

    def recall(self, records: list[Any]) -> None:
        self._duplicates.add(decode(records, self._validate, self.bundle.manifest.rule)[0])

    def set_aside(self, rejected: Rejected) -> BatchResult:
        return set_aside(self, rejected)

    def apply(self, result: BatchResult) -> None:
        if result.read is not None:
            self._duplicates.add(result.read)
        if result.new is not None:
            result.new.apply(self.state)

    def tick(self, partitions: set[int]) -> BatchResult | None:
        return None  # p_u is computed when it is asked for, as of that moment

    def close(self) -> None:
        if self._item_vectors is not None:
            self._item_vectors.close()
            self._item_vectors = None
        if self._list is not None:
            self._list.close()
            self._list = None


class ItemStage:
    """``item-signals`` → ``item-vectors``."""

    name, state_schema, window = "item", ITEM_STATE, 0

    def __init__(self, bundle: Bundle, store: "FeatureStore", config: UpdaterConfig, partitions: int, starts: Offsets):
        self.bundle, self.config, self._starts = bundle, config, starts
        self.batch_records, self.linger_ms = config.batch_records, 0  # the query stage has lingered already
        self.source, self.changelog = config.topics.item_signals, config.topics.item_vectors
        spec = bundle.manifest.item
        self.state, self._profiles = bundle.items.copy(), NewProfiles(Profiles(store, "item", spec))
        self._partitions = RowPartitions(partitions)
        self._pack = Packer(bundle.version, config.record_bytes)
        self._newest = 0  # event time of the newest click
        self._ticked = time.monotonic()
        self._next_row = 0

    def open(self) -> None:
        self.source_id, _ = described(self.config, [self.source])[self.source]

    def refresh(self) -> None: ...

    def start_offset(self, partition: int) -> int:
        return self._starts.get(TopicPartition(self.source, partition), 0)  # other bundles' signals are dropped

    def changelog_starts(self, partitions: list[int]) -> Offsets:
        return changelog_starts(self.changelog, partitions, self._starts)

    def restore(self, rows: pa.RecordBatch) -> None:
        item_stage.restore(rows, self.state).apply(self.state)

    def forget(self, partition: int) -> None: ...

    def recall(self, records: list[Any]) -> None: ...

    def set_aside(self, rejected: Rejected) -> BatchResult:
        return set_aside(self, rejected)

    def process(self, records: list[Any]) -> BatchResult:
        ours, unreadable = split(records, self.bundle.version)
        dim = self.bundle.manifest.config.signal_dim
        signals = item_stage.gather([change.rows for change in ours], [change.partition for change in ours], dim)
        letters = [Rejected.of(record, "record", "record: no signals of this release") for record in unreadable]
        dead = [Message(self.config.topics.dead_letters, 0, r.kept, r.key, r.headers) for r in letters]
        kinds = tuple(letter.kind for letter in letters)
        if not len(signals):
            return BatchResult([*dead, *account(self, ends(records))], None, 0, kinds)
        step = item_stage.step(signals, self.state, self._profiles, self.bundle)
        finite(item_vectors=step.vectors, augmented_vectors=step.update.a)
        self._newest = max(self._newest, int(signals.times.max()))
        arrived = min(change.arrived for change in ours)
        messages = self._messages(step, next_header(records, arrived, self.source_id))
        return BatchResult([*dead, *messages], step, len(signals), kinds, arrived=arrived)

    def _messages(self, step: item_stage.ItemStep, headers: Headers) -> list[Message]:
        return self._pack(
            self.changelog, step.partitions, lambda chosen: item_stage.changelog(step, self.state.ids, chosen), headers
        )

    def tick(self, partitions: set[int]) -> BatchResult | None:
        """Items whose vectors have drifted: nobody clicks them, so their counters decay and their age grows.

        Time is the newest click's, so a replay of old clicks drifts at its own speed. Each tick looks at a share of
        the items, so that a large corpus does not hold up the clicks.
        """
        if time.monotonic() - self._ticked < self.config.tick_ms / 1000 or not self._newest or not partitions:
            return None
        self._ticked = time.monotonic()
        rows = np.arange(self._next_row, min(self._next_row + self.config.tick_rows, len(self.state)))
        self._next_row = 0 if not len(rows) or rows[-1] + 1 >= len(self.state) else int(rows[-1]) + 1
        rows = rows[self.state.as_of[rows] < self._newest]
        rows = drifted(self.state, self.bundle.manifest.item, rows, self._newest, self.config.tick_drift)
        owners = self._partitions(rows, self.state.ids)
        mine = np.isin(owners, list(partitions))
        if not mine.any():
            return None
        step = item_stage.recompute(rows[mine], self.state, self.bundle, self._newest, owners[mine])
        return BatchResult(self._messages(step, drift_header), step, 0)

    def apply(self, result: BatchResult) -> None:
        if result.new is not None:
            result.new.apply(self.state)

    def close(self) -> None: ...
