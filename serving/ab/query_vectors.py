"""The augmented vectors of a bundle that is not in service, straight from its changelog.

The online store has one a_u a query, that of the bundle in service. An experiment's other bundle has its own updater,
which writes to Kafka alone; all else that is known of a query (profile, activity, history) is the same for both.
"""

from typing import Any

import numpy as np
import pyarrow.compute as pc

from model.settings.updater import KafkaConnection
from serving.features import Columns
from serving.token import Token
from serving.topic_reader import TopicReader
from streaming.kafka.changelog import NEXT
from streaming.kafka.records import unpack


class QueryVectors(TopicReader):
    """Reads ``query-vectors`` and keeps the latest a_u of each query that has clicked since the cut."""

    def __init__(self, kafka: KafkaConnection, bundle: str):
        super().__init__(kafka, kafka.topics.query_vectors)
        self.bundle = bundle
        self._latest: dict[str, tuple[np.ndarray, int]] = {}
        self._next: dict[int, int] = {}

    def folded(self, tokens: set[Token]) -> set[Token]:
        """Of some clicks, those that the vectors count."""
        return {token for token in tokens if self._next.get(token.partition, 0) > token.offset}

    def put_into(self, columns: Columns, ids: list[str]) -> Columns:
        """What the online store says of some queries, with this bundle's vectors in place of the store's."""
        latest = [self._latest.get(id_) for id_ in ids]
        return columns | {
            "query_augmented__a": [None if one is None else one[0] for one in latest],
            "query_augmented__folded": [None if one is None else one[1] for one in latest],
            "query_augmented__bundle": [self.bundle] * len(ids),
        }

    def apply(self, record: Any) -> None:
        packed = unpack(record.value)
        if packed.bundle != self.bundle:
            return
        packed.known(record)
        vectors = [np.asarray(a, np.float32) for a in packed.rows["a"].to_pylist()]
        known = zip(vectors, packed.rows["folded"].to_pylist(), strict=True)
        self._latest.update(zip(packed.rows["id"].to_pylist(), known, strict=True))
        for id_ in packed.rows["id"].filter(pc.equal(packed.rows["clicks"], 0)).to_pylist():
            del self._latest[id_]  # it was forgotten
        self._next[record.partition] = int(dict(record.headers).get(NEXT, b"0").split()[0])
