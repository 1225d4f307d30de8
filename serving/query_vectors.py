"""The augmented vectors of a bundle that is not in service, straight from its changelog.

The online store has one a_u a query, that of the bundle in service. An experiment's other bundle has its own updater,
which writes to Kafka alone; all else that is known of a query (profile, activity, history) is the same for both.
"""

import numpy as np

from serving.features import Columns
from serving.reading import Reading
from streaming.changelog import Changelog
from streaming.config import KafkaConnection
from streaming.topics import QUERY_VECTORS


class QueryVectors(Reading):
    """Reads ``query-vectors`` and keeps the latest a_u of each query that has clicked since the cut."""

    def __init__(self, kafka: KafkaConnection, bundle: str):
        self.bundle = bundle
        self._kafka = kafka
        self._latest: dict[str, tuple[np.ndarray, int]] = {}
        super().__init__(f"query vectors of {bundle}")

    def folded(self, id_: str) -> int | None:
        """How many clicks a query's vector has folded; None: none since the cut."""
        found = self._latest.get(id_)
        return None if found is None else found[1]

    def put_into(self, columns: Columns, ids: list[str]) -> Columns:
        """What the online store says of some queries, with this bundle's vectors in place of the store's."""
        found = [self._latest.get(id_) for id_ in ids]
        return columns | {
            "query_augmented__a": [None if one is None else one[0] for one in found],
            "query_augmented__folded": [None if one is None else one[1] for one in found],
            "query_augmented__bundle": [self.bundle] * len(ids),
        }

    def read(self) -> None:
        changelog = Changelog(self._kafka, QUERY_VECTORS, self.bundle)
        self.error = None
        try:
            while not self._stop.is_set():
                for rows in changelog.poll(200):
                    vectors = [np.asarray(a, np.float32) for a in rows["a"].to_pylist()]
                    known = zip(vectors, rows["folded"].to_pylist(), strict=True)
                    self._latest.update(zip(rows["id"].to_pylist(), known, strict=True))
                if changelog.caught_up:
                    self._caught_up.set()
        finally:
            changelog.close()
