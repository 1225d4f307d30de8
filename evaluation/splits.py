"""How a log is cut into what to learn from and what to predict."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from evaluation.test_clicks import TestClicks, make_test
from feature_repo.card import DatasetCard
from model.newest_day import DayCount, newest_day
from model.settings.night import Rules
from model.windows import latest, window
from training.build import SPAN_MS, build_tables, in_fold_order, last_clicks, lay_out
from training.training_set import TrainingSet

Array = np.ndarray
Protocol = Literal["night", "window", "live", "last-out", "published"]
LIVE_SHARE = 0.1
DAY_MS = 86_400_000


class SplitError(ValueError):
    """A log is too short for the protocol."""


@dataclass(frozen=True)
class Split:
    """A training set and the clicks to predict; live: each click is folded in after it was predicted."""

    data: TrainingSet
    test: TestClicks
    live: bool

    @property
    def cut_ms(self) -> int:
        return self.test.cut_ms

    @cached_property
    def digest(self) -> str:
        """A hash of all that a model is trained on and asked."""
        data, test = self.data, self.test
        ids = list(data.queries.ids), list(data.items.ids)
        digest = hashlib.sha256(repr((*ids, test.excludes_seen, test.cut_ms)).encode())
        for clicks in (data.clicks, test.clicks):
            digest.update(b"".join(np.asarray(part).tobytes() for part in (clicks.queries, clicks.items, clicks.times)))
            digest.update(b"" if clicks.weights is None else clicks.weights.tobytes())
        for part in (data.negatives, test.scored, *test.queries.arrays().values(), *test.items.arrays().values()):
            digest.update(b"" if part is None else part.tobytes())
        return digest.hexdigest()


@dataclass(frozen=True)
class Cut:
    """Clicks in the order of the fold: from before the window, of the window, and to predict.

    scored: which of the last are predicted; the others are only folded in (None: all are).
    """

    before: pa.Table
    window: pa.Table
    test: pa.Table
    cut_ms: int
    scored: Array | None = None


def protocol_of(card: DatasetCard) -> Protocol:
    """The protocol where nothing else is said: last-out if the card says so or the log has no times, else live."""
    return "last-out" if card.protocol == "last-out" or card.clicks.timeless else "live"


def make_split(
    clicks: pa.Table, catalogues: Mapping[str, pa.Table], card: DatasetCard, protocol: Protocol, negatives: int = 4,
    seed: int = 0, limit: int | None = None, tuning: bool = False, excludes_seen: bool | None = None,
    window_days: int | None = None, min_day: float = Rules().min_day,
) -> Split:  # fmt: skip
    """Cut a log and build its training set.

    ``night``: the split of ``dat nightly`` on the newest date; the card's days, then the day after, live. ``window``:
    the same, with vectors as at the cut. ``live``: the same where a day of the card is one day, else the last tenth of
    the clicks. ``last-out``: each query's last click, all at the cut. ``published``: each query's last click, with the
    last but one as history, and neither in training.

    Args:
        limit: Only the first so many test clicks.
        tuning: Cut one step earlier: a validation set in which no test click is.
        excludes_seen: Whether answers leave out what a query has clicked; None: where few in the window repeat.
        window_days: Days to train on, in place of the card's.
        min_day: What makes a day (:func:`model.newest_day.newest_day`).
    """
    total, clicks = len(clicks), in_fold_order(clicks, card)
    if tuning:
        clicks = _without_test(clicks, card, protocol, window_days, min_day)
    cut = _cut(clicks, card, protocol, window_days, min_day, tuning)
    for part, name in ((cut.window, "to learn from"), (cut.test, "to predict")):
        if not len(part):
            raise SplitError(
                f"the protocol {protocol} leaves no clicks {name} of the {total:,} of '{card.name}'"
                f"{' for tuning' if tuning else ''}; give more clicks, another --protocol, or another `day` in the card"
            )
    tables = build_tables(cut.before, cut.window, catalogues, card, cut.cut_ms, negatives, seed)
    data = TrainingSet.of(tables, card)
    if excludes_seen is not None:
        data = replace(data, excludes_seen=excludes_seen)
    queries, items = data.at_cut
    test = make_test(
        cut.test.slice(0, limit), catalogues, card, queries, items, data.query_spec, data.item_spec,
        data.excludes_seen, cut.cut_ms,
    )  # fmt: skip
    if cut.scored is not None:
        test = replace(test, scored=cut.scored[:limit])
    return Split(data, test, protocol in ("night", "live", "published"))


def _cut(
    clicks: pa.Table, card: DatasetCard, protocol: Protocol, window_days: int | None, min_day: float, tuning: bool
) -> Cut:
    nothing = clicks.slice(0, 0)
    if protocol in ("last-out", "published"):
        last = last_clicks(clicks)
        known, test = clicks.filter(pa.array(~last)), clicks.filter(pa.array(last))
        scored = None
        if protocol == "published" and not tuning:
            last = last_clicks(known)
            test = pa.concat_tables([known.filter(pa.array(last)), test])
            scored = np.arange(len(test)) >= last.sum()
            known = known.filter(pa.array(~last))
        if card.clicks.timeless:
            # Without the test clicks: they would leave a hole just before the cut, and counters lower than any before.
            known = in_fold_order(lay_out(known), card)
        cut_ms = int(known["event_time"][-1].as_py()) + 1 if len(known) else SPAN_MS
        moments = np.full(len(test), cut_ms) if scored is None else cut_ms + scored
        at = test.column_names.index("event_time")
        test = in_fold_order(test.set_column(at, "event_time", pa.array(moments)), card)
        return Cut(nothing, known, test, cut_ms, scored)
    if not len(clicks):
        return Cut(nothing, nothing, nothing, 0)
    times = clicks["event_time"].to_numpy()
    if protocol == "live" and card.day_ms != DAY_MS:
        first, at = 0, round(len(clicks) * (1 - LIVE_SHARE))
        cut_ms, end = int(times[min(at, len(times) - 1)]), len(clicks)
        at = int(np.searchsorted(times, cut_ms))  # whole moments
    else:
        newest = newest_day(card, day_counts(times, card), min_day)
        span = window(card, latest(card, newest.last_ms), window_days or card.window_days)
        cut_ms = span.cut
        first, at, end = np.searchsorted(times, [span.start, span.cut, span.end]).tolist()
    return Cut(clicks.slice(0, first), clicks.slice(first, at - first), clicks.slice(at, end - at), cut_ms)


def _without_test(
    clicks: pa.Table, card: DatasetCard, protocol: Protocol, window_days: int | None, min_day: float
) -> pa.Table:
    """The log without the test clicks, to cut once more."""
    if protocol in ("last-out", "published"):
        return clicks.filter(pa.array(~last_clicks(clicks)))
    cut = _cut(clicks, card, protocol, window_days, min_day, tuning=False)
    return pa.concat_tables([cut.before, cut.window])


def day_counts(times: Array, card: DatasetCard) -> list[DayCount]:
    """The dates that have clicks, by the card's clock; times [N] ms in order."""
    local = pc.local_timestamp(pa.array(times, pa.timestamp("ms", card.timezone)))
    dates, first, counts = np.unique(
        local.cast(pa.date32()).cast(pa.int32()).to_numpy(), return_index=True, return_counts=True
    )
    days = pa.array(dates, pa.int32()).cast(pa.date32()).to_pylist()
    return list(zip(days, counts.tolist(), times[first + counts - 1].tolist(), strict=True))
