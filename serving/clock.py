"""What "now" means to the service."""

import time
from collections.abc import Callable


def wall_ms() -> int:
    return time.time_ns() // 1_000_000


class Clock:
    """Now, in ms since the epoch: the wall's, or for a replay of old clicks the newest event's.

    On data time the features that decay are read as of the data's own present; by the wall clock all of them would
    have decayed to nothing, a state in which no tower was trained.
    """

    def __init__(self, newest_event: Callable[[], int], replay: bool):
        self._newest_event = newest_event
        self.replay = replay
        self._last = 0

    def now_ms(self) -> int:
        if not self.replay:
            return wall_ms()
        self._last = max(self._last, self._newest_event())
        return self._last

    @classmethod
    def choose(cls, kind: str, newest_event: Callable[[], int], cut_ms: int, replay_after_days: int) -> "Clock":
        """``wall``, ``data``, or ``auto``: data time if the bundle's cut lies long past."""
        old = wall_ms() - cut_ms > replay_after_days * 86_400_000
        return cls(newest_event, kind == "data" or (kind == "auto" and old))
