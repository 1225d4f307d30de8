"""Clicks that come twice: an event id that was seen within the last so many records of its partition is dropped.

The window is counted in records, so whether a click repeats is a property of the topic alone. It needs no storage of
its own: a worker that takes over a partition reads the window again.
"""

from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from streaming.clicks import Clicks

Array = np.ndarray


class _Batch(NamedTuple):
    """Clicks of one partition, in order: places among all clicks of the batch, event ids, offsets."""

    places: list[int]
    event_ids: list[str]
    offsets: list[int]


class DuplicateFilter:
    """The event ids of the latest ``window`` records of each partition (0: nothing is remembered)."""

    def __init__(self, window: int):
        self.window = window
        self._last: dict[int, dict[str, int]] = {}  # partition → event id → offset
        self._batches: dict[int, deque[_Batch]] = {}  # partition → what was remembered, oldest first

    def repeats(self, clicks: Clicks) -> Array:
        """[N] which of some clicks, in order, repeat one before; remembers nothing."""
        repeated = np.zeros(len(clicks), bool)
        for partition, batch in self._split(clicks):
            last = self._last.get(partition, {})
            if len(set(batch.event_ids)) == len(batch.event_ids) and last.keys().isdisjoint(batch.event_ids):
                continue  # nearly always
            earlier = dict(last)
            for k, event_id, offset in zip(*batch, strict=True):
                before = earlier.get(event_id)
                repeated[k] = before is not None and before < offset <= before + self.window
                earlier[event_id] = offset
        return repeated

    def add(self, clicks: Clicks) -> None:
        """Remember clicks that are committed, repeats included; forget what has fallen out of the window."""
        for partition, batch in self._split(clicks):
            last = self._last.setdefault(partition, {})
            batches = self._batches.setdefault(partition, deque())
            last.update(zip(batch.event_ids, batch.offsets, strict=True))
            batches.append(batch)
            while batches[0].offsets[-1] < batch.offsets[-1] - self.window:
                old = batches.popleft()
                for event_id, offset in zip(old.event_ids, old.offsets, strict=True):
                    if last.get(event_id) == offset:  # else it has come again since
                        del last[event_id]

    def forget(self, partition: int) -> None:
        """A partition that was another worker's meanwhile is read anew."""
        self._last.pop(partition, None)
        self._batches.pop(partition, None)

    def _split(self, clicks: Clicks) -> Iterator[tuple[int, _Batch]]:
        for partition in np.unique(clicks.partitions).tolist() if self.window else ():
            places = np.flatnonzero(clicks.partitions == partition)
            ids = [clicks.event_ids[k] for k in places.tolist()]
            yield partition, _Batch(places.tolist(), ids, clicks.offsets[places].tolist())
