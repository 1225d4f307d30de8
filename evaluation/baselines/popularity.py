"""Popularity: what most clicked, in the whole window (static) or in the time just past (trailing)."""

import numpy as np

from evaluation.test_clicks import TestClicks
from training.training_set import AT_ONCE, TrainingSet

Array = np.ndarray


class Popularity:
    """Ranks items by their clicks.

    Args:
        trailing_ms: Only clicks of the last so many milliseconds count, up to each block of test clicks where live, up
            to the cut where not; None: all do.
    """

    def __init__(self, trailing_ms: int | None = None):
        self.trailing_ms = trailing_ms

    def fit(self, data: TrainingSet, cut_ms: int) -> None:
        since = np.iinfo(np.int64).min if self.trailing_ms is None else cut_ms - self.trailing_ms
        items, times = [], []
        for block in data.blocks(AT_ONCE):
            late = block.clicks.times >= since
            items.append(block.clicks.items[late])
            times.append(block.clicks.times[late])
        self.items, self.times = np.concatenate(items), np.concatenate(times)

    def scorer(self, test: TestClicks, live: bool) -> "PopularityScorer":
        return PopularityScorer(self, test, live)


class PopularityScorer:
    """Counts by item, of clicks that are inside the trailing time."""

    def __init__(self, model: Popularity, test: TestClicks, live: bool):
        self.live, self.test, self.trailing_ms = live, test, model.trailing_ms
        self.items = np.concatenate([model.items, test.clicks.items])
        self.times = np.concatenate([model.times, test.clicks.times])
        self.oldest, self.newest = 0, len(model.items)
        self.counts = np.bincount(model.items, minlength=len(test.items)).astype(np.float32)
        self._forget(test.cut_ms)

    def _forget(self, now_ms: int) -> None:
        if self.trailing_ms is not None:
            oldest = int(np.searchsorted(self.times[: self.newest], now_ms - self.trailing_ms))
            np.subtract.at(self.counts, self.items[self.oldest : oldest], 1)
            self.oldest = max(self.oldest, oldest)

    def begin(self, block: slice) -> None:
        if self.live:
            self._forget(int(self.test.clicks.times[block.start]))

    def score(self, rows: slice) -> Array:
        return np.broadcast_to(self.counts, (rows.stop - rows.start, len(self.counts)))

    def end(self, block: slice) -> None:
        if self.live:
            np.add.at(self.counts, self.test.clicks.items[block], 1)
            self.newest += block.stop - block.start
