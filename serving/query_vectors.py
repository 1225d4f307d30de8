"""The augmented vectors of a bundle that is not in service, straight from its changelog.

The online store has one a_u a query, that of the bundle in service. An experiment's other bundle has its own updater,
which writes to Kafka alone; all else that is known of a query (profile, activity, history) is the same for both.
"""

import logging
import threading

import numpy as np
from kafka.errors import KafkaError

from serving.features import Columns
from streaming.changelog import Follower
from streaming.config import KafkaConnection
from streaming.topics import QUERY_VECTORS

log = logging.getLogger(__name__)


class QueryVectors:
    """A thread that follows ``query-vectors`` and keeps the latest a_u of each query that has clicked since the cut."""

    def __init__(self, kafka: KafkaConnection, bundle: str):
        self.bundle = bundle
        self._kafka = kafka
        self._latest: dict[str, tuple[np.ndarray, int]] = {}
        self._caught_up = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="query-vectors", daemon=True)
        self._thread.start()

    def wait_caught_up(self, timeout_s: float) -> bool:
        """Whether all that was there at the start has been read within so long."""
        return self._caught_up.wait(timeout_s)

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

    def close(self) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                follower = Follower(self._kafka, QUERY_VECTORS, self.bundle)
            except (KafkaError, TimeoutError) as error:
                self._failed(error)
                continue
            try:
                while not self._stop.is_set():
                    for rows in follower.poll(200):
                        vectors = [np.asarray(a, np.float32) for a in rows["a"].to_pylist()]
                        self._latest.update(
                            zip(
                                rows["id"].to_pylist(),
                                zip(vectors, rows["folded"].to_pylist(), strict=True),
                                strict=True,
                            )
                        )
                    if follower.caught_up:
                        self._caught_up.set()
            except KafkaError as error:  # begins again from the start: values are absolute
                self._failed(error)
            finally:
                follower.close()

    def _failed(self, error: Exception) -> None:
        log.warning("query vectors of %s cannot be read, trying again: %s", self.bundle, type(error).__name__)
        self._stop.wait(1)
