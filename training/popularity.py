"""Popularity: what most clicked, in the whole window (static) or in the time just past (trailing)."""

import numpy as np

from training.examples import TrainingSet
from training.replay import Replay

Array = np.ndarray


class Popularity:
    """Ranks items by their clicks.

    Args:
        trailing_ms: Live, only clicks of the last so many milliseconds count, up to the click before; None: all do.
    """

    def __init__(self, trailing_ms: int | None = None):
        self.trailing_ms = trailing_ms

    def fit(self, window: TrainingSet) -> None:
        self.items = window.examples.item_rows[:, 0]
        self.times = window.examples.event_time
        self.size = len(window.item)

    def scorer(self, replay: Replay, live: bool) -> "_Scorer":
        return _Scorer(self, replay, live)


class _Scorer:
    def __init__(self, fitted: Popularity, replay: Replay, live: bool):
        self.live, self.replay, self.trailing_ms = live, replay, fitted.trailing_ms
        self.items = np.concatenate([fitted.items, replay.items])
        self.times = np.concatenate([fitted.times, replay.times])
        self.known = len(fitted.items)
        width = len(replay.item) if live else fitted.size
        cut = replay.times[0] if len(replay) else 0
        self.oldest = self._oldest(cut)
        self.counts = np.bincount(fitted.items[self.oldest :], minlength=width).astype(np.float32)

    def _oldest(self, now: int) -> int:
        return 0 if self.trailing_ms is None else int(np.searchsorted(self.times, now - self.trailing_ms))

    def score(self, rows: slice) -> Array:
        """Clicks [B, I] of each item just before each click."""
        if not self.live:
            return np.broadcast_to(self.counts, (rows.stop - rows.start, len(self.counts)))
        scores = np.empty((rows.stop - rows.start, len(self.counts)), np.float32)
        for row, position in enumerate(range(rows.start, rows.stop)):
            oldest = self._oldest(self.replay.times[position])
            np.subtract.at(self.counts, self.items[self.oldest : oldest], 1)
            self.oldest = max(self.oldest, oldest)
            scores[row] = self.counts
            self.counts[self.replay.items[position]] += 1
        return scores
