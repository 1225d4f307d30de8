"""Profiles of ids that the bundle does not know, from the Feast online store."""

import contextlib
import logging
import queue
import threading
import time
from typing import TYPE_CHECKING

import numpy as np

from model.features import InputSpec, Profile, encode
from model.state import EntityState

if TYPE_CHECKING:
    from feast import FeatureStore

Array = np.ndarray
log = logging.getLogger(__name__)
_WAIT_S, _OPEN_S = 0.1, 5.0
_PAUSE_S = 0.5, 30.0  # how long an unavailable store is left alone: at first, at most


class Profiles:
    """Looks up and encodes profiles of one side, one read for all the new ids of a batch, on a thread of its own.

    A batch waits a tenth of a second at most: whatever the store does, the clicks go on. Ids whose profiles did not
    come in time count as unknown for now and are asked for again when they are clicked next. After that the store is
    left alone for a while, twice as long each time.

    Args:
        store: The Feast store; its settings are used to open one of this reader's own, since a SQLite connection is
            not to be shared between threads.
        side: ``query`` or ``item``.
        spec: What that side's tower reads.
    """

    def __init__(self, store: "FeatureStore", side: str, spec: InputSpec):
        self._config, self._side, self._spec = store.config, side, spec
        self._names = [*(f.name for f in spec.categories), *(f.name for f in spec.numbers), *spec.times]
        self._pause_s, self._resume = _PAUSE_S[0], 0.0
        self._opened = threading.Event()
        self._questions = self._reader() if self._names else None

    def fetch(self, ids: list[str]) -> Profile | None:
        """Profiles of N ids, unknown values where the catalogue has none; None if the store did not answer in time."""
        if not self._names:
            return encode(self._spec, {}, len(ids))
        if time.monotonic() < self._resume:
            return None
        if self._questions is None:
            self._questions = self._reader()
        self._opened.wait(_OPEN_S)  # only the first time: imports and connections take longer than an answer
        answers: queue.SimpleQueue = queue.SimpleQueue()
        self._questions.put((ids, answers))
        try:
            answer = answers.get(timeout=_WAIT_S)
        except queue.Empty:
            answer = TimeoutError(f"no answer within {_WAIT_S} s")
        if isinstance(answer, Profile):
            self._pause_s = _PAUSE_S[0]
            return answer
        log.warning(
            "profiles_unavailable side=%s ids=%d error=%r retry_s=%.1f", self._side, len(ids), answer, self._pause_s
        )
        self._questions.put(None)  # the thread ends when the store lets it
        self._questions = None
        self._resume = time.monotonic() + self._pause_s
        self._pause_s = min(2 * self._pause_s, _PAUSE_S[1])
        return None

    def _reader(self) -> queue.SimpleQueue:
        questions: queue.SimpleQueue = queue.SimpleQueue()
        threading.Thread(target=self._read, args=(questions,), name="profiles", daemon=True).start()
        return questions

    def _read(self, questions: queue.SimpleQueue) -> None:
        from feast import FeatureStore

        store = FeatureStore(config=self._config)
        with contextlib.suppress(Exception):
            self._fetch(store, ["-"])
        self._opened.set()
        while (question := questions.get()) is not None:
            ids, answers = question
            try:
                answers.put(self._fetch(store, ids))
            except Exception as error:  # the online stores raise their drivers' own errors
                answers.put(error)

    def _fetch(self, store: "FeatureStore", ids: list[str]) -> Profile:
        key, view = f"{self._side}_id", f"{self._side}_profile"
        answer = store.get_online_features(
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


class NewProfiles:
    """Gives the ids of a state that the bundle does not know their profiles."""

    def __init__(self, profiles: Profiles):
        self._profiles = profiles
        self._checked: set[int] = set()

    def fill(self, state: EntityState, rows: Array) -> None:
        """Look up the profiles of those rows that are still without one; an unavailable store is asked again later."""
        new = [row for row in rows[rows >= state.trained].tolist() if row not in self._checked]
        if not new:
            return
        profile = self._profiles.fetch([state.ids[row] for row in new])
        if profile is not None:
            at = np.array(new)
            state.put(at, codes=profile.codes, numbers=profile.numbers, times=profile.times)
            self._checked.update(new)
