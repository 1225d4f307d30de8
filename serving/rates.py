"""How often each of many may do something."""

import time
from collections import OrderedDict
from math import ceil


class Rates:
    """A token bucket for each: it holds what may come at once, and fills again as time goes by.

    Args:
        remembered: Of how many at most is kept what they have done; who has done nothing for longest is forgotten.
    """

    def __init__(self, remembered: int = 100_000):
        self._remembered = remembered
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()  # who → how often it may, as of when

    def __len__(self) -> int:
        return len(self._left)

    def take(self, who: str, at_once: float, per_second: float) -> int:
        """Do it once. Returns 0, or in how many seconds it may be done; then nothing is taken.

        Args:
            at_once: How often it may be done in one go (at least 1). per_second: How often for good.
        """
        left, now = self._now(who, at_once, per_second)
        if left < 1:
            return _seconds(left, per_second)
        self._left[who] = left - 1, now
        self._left.move_to_end(who)
        if len(self._left) > self._remembered:
            self._left.popitem(last=False)
        return 0

    def wait_s(self, who: str, at_once: float, per_second: float) -> int:
        """In how many seconds :meth:`take` would; 0: now. Takes nothing."""
        left, _ = self._now(who, at_once, per_second)
        return 0 if left >= 1 else _seconds(left, per_second)

    def _now(self, who: str, at_once: float, per_second: float) -> tuple[float, float]:
        now = time.monotonic()
        left, as_of = self._left.get(who, (at_once, now))
        return min(at_once, left + (now - as_of) * per_second), now


def _seconds(left: float, per_second: float) -> int:
    return max(1, ceil((1 - left) / per_second))
