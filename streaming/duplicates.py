"""Clicks that come twice: an event id that was seen within the last so many records of its partition is dropped.

The window is counted in records, so whether a click repeats is a property of the topic alone. It needs no storage of
its own: a worker that takes over a partition reads the window again.
"""

from collections import OrderedDict

import numpy as np

from streaming.clicks import Clicks

Array = np.ndarray


class Recent:
    """The event ids of the latest ``window`` records of each partition (0: nothing is remembered)."""

    def __init__(self, window: int):
        self.window = window
        # Partition → event id → offset, oldest first. An OrderedDict, since a plain one finds its first entry by a
        # walk over all the gaps that deletions have left before it.
        self._last: dict[int, OrderedDict[str, int]] = {}

    def repeats(self, clicks: Clicks) -> Array:
        """[N] which of some clicks, in order, repeat one before; remembers nothing."""
        repeated = np.zeros(len(clicks), bool)
        if not self.window:
            return repeated
        batch: dict[tuple[int, str], int] = {}
        known = zip(clicks.partitions.tolist(), clicks.event_ids, clicks.offsets.tolist(), strict=True)
        for k, (partition, event_id, offset) in enumerate(known):
            last = batch.get((partition, event_id))
            if last is None:
                last = self._last.get(partition, {}).get(event_id)
            repeated[k] = last is not None and last < offset <= last + self.window
            batch[partition, event_id] = offset
        return repeated

    def add(self, clicks: Clicks) -> None:
        """Remember clicks that are committed, repeats included; forget what falls out of the window."""
        if not self.window:
            return
        known = zip(clicks.partitions.tolist(), clicks.event_ids, clicks.offsets.tolist(), strict=True)
        for partition, event_id, offset in known:
            last = self._last.setdefault(partition, OrderedDict())
            last[event_id] = offset
            last.move_to_end(event_id)  # the order stays that of the offsets
            while last[next(iter(last))] < offset - self.window:
                last.popitem(last=False)

    def forget(self, partition: int) -> None:
        """A partition that was another worker's meanwhile is read anew."""
        self._last.pop(partition, None)
