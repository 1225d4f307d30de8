"""Brings the corpus up to what the stream has computed of the items, and keeps it there."""

import time
from typing import Any

import numpy as np
import pyarrow as pa

from model.settings.updater import KafkaConnection
from serving.corpus import Corpus
from serving.index.vectors import searchable
from serving.metrics import INDEX_LAG, SEARCHABLE, SET_ASIDE
from serving.topic_reader import TopicReader
from streaming.kafka.changelog import ARRIVED
from streaming.kafka.records import ITEM_STATE, unpack


class ItemVectorConsumer(TopicReader):
    """Reads ``item-vectors`` and applies the rows of the corpus's bundle."""

    def __init__(self, corpus: Corpus, kafka: KafkaConnection):
        super().__init__(kafka, kafka.topics.item_vectors)
        self.corpus = corpus
        self.applied = 0  # rows of this bundle
        self.foreign = 0  # rows of other bundles, dropped: their vectors lie in another space
        self.delay_ms: float | None = None
        """From commit to findable, of the last record that came after all that was there at the start."""

    def apply(self, record: Any) -> None:
        packed = unpack(record.value)
        if packed.bundle != self.corpus.version:
            self.foreign += len(packed.rows)
            return
        rows = checked(packed.known(record).rows, self.corpus.index.dimension)
        if len(rows) < len(packed.rows):
            SET_ASIDE.labels(self._topic).inc(len(packed.rows) - len(rows))
        self.corpus.apply(rows)
        self.applied += len(rows)
        if self.caught_up:
            now_ms = time.time() * 1000
            self.delay_ms = max(0.0, now_ms - record.timestamp)
            if arrived := int(dict(record.headers).get(ARRIVED, 0)):
                SEARCHABLE.observe(max(0.0, now_ms - arrived) / 1000)

    def idle(self) -> None:
        INDEX_LAG.set(self.lag or 0)


def checked(rows: pa.RecordBatch, dimension: int) -> pa.RecordBatch:
    """The rows whose numbers are all finite, and whose vectors the index takes.

    Raises:
        ValueError: a column is missing or has nulls, or the vectors are not as wide as the index.
    """
    missing = [name for name in ITEM_STATE.names if name not in rows.schema.names]
    if missing:
        raise ValueError(f"the record has no {', '.join(missing)}")
    if any(rows[name].null_count for name in ITEM_STATE.names):
        raise ValueError("the record has nulls")
    vectors = rows["vector"].flatten().to_numpy(zero_copy_only=False)
    if len(vectors) != len(rows) * dimension:
        raise ValueError(f"vectors of {len(vectors) / max(1, len(rows)):g} numbers, not of {dimension}")
    counters = rows["counters"].flatten().to_numpy(zero_copy_only=False)
    if not len(rows):  # it only says how far its writer has come
        return rows
    good = searchable(vectors.reshape(len(rows), -1))
    good &= np.isfinite(counters.reshape(len(rows), -1)).all(axis=1)
    return rows if good.all() else rows.filter(pa.array(good))
