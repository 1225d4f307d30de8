"""Profiles of ids that the bundle does not know, from the Feast online store."""

import logging
import time
from typing import TYPE_CHECKING

import numpy as np

from training.features import InputSpec, Profile, encode

if TYPE_CHECKING:
    from feast import FeatureStore

log = logging.getLogger(__name__)
_ATTEMPTS = 3


class Profiles:
    """Looks up and encodes profiles of one side, one read for all the new ids of a batch.

    Args:
        store: The Feast store; its settings are used to open one of this worker's own, since a SQLite connection is
            not to be shared between threads.
        side: ``query`` or ``item``.
        spec: What that side's tower reads.
    """

    def __init__(self, store: "FeatureStore", side: str, spec: InputSpec):
        self._config, self._side, self._spec = store.config, side, spec
        self._store: FeatureStore | None = None
        self._names = [*(f.name for f in spec.categories), *(f.name for f in spec.numbers), *spec.times]

    def fetch(self, ids: list[str]) -> Profile | None:
        """Profiles of N ids, unknown values where the catalogue has none; None if the store did not answer.

        A batch does not wait for a store that is away: its new ids count as unknown for now and are asked for again
        when they are clicked next.
        """
        if not self._names:
            return encode(self._spec, {}, len(ids))
        for attempt in range(_ATTEMPTS):
            try:
                return self._fetch(ids)
            except Exception as error:  # the online stores raise their drivers' own errors
                log.warning(
                    "profiles_unavailable side=%s ids=%d attempt=%d error=%r", self._side, len(ids), attempt, error
                )
                self._store = None
                time.sleep(0.05 * 4**attempt)
        return None

    def _fetch(self, ids: list[str]) -> Profile:
        if self._store is None:
            from feast import FeatureStore

            self._store = FeatureStore(config=self._config)
        key, view = f"{self._side}_id", f"{self._side}_profile"
        answer = self._store.get_online_features(
            features=[f"{view}:{name}" for name in self._names], entity_rows=[{key: id_} for id_ in ids]
        ).to_dict()
        # A store answers each distinct id in the order in which it was asked.
        return encode(self._spec, {name: answer[name] for name in self._names}, len(ids))

    def unknown(self, size: int) -> Profile:
        """Profiles of ids of which nothing is known."""
        return Profile(
            np.zeros((size, self._spec.slots), np.int32),
            np.zeros((size, len(self._spec.numbers)), np.float32),
            np.zeros((size, len(self._spec.times)), np.int64),
        )
