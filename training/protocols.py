"""How a log is cut into what to learn from and what is asked: ``window``, ``nightly``, ``last-out``, ``live``."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa

from feature_repo.card import DatasetCard
from feature_repo.source import SPAN_MS
from training.clicked import Clicked
from training.examples import TrainingSet
from training.replay import Replay, make_replay
from training.window import make_examples, number, split_at

Array = np.ndarray
Protocol = Literal["window", "nightly", "last-out", "live"]
LIVE_SHARE = 0.1


class ProtocolError(ValueError):
    """A log is too short for the way it should be cut."""


@dataclass(frozen=True)
class Trial:
    """One training window and the clicks to predict.

    live: each click is folded in after it was predicted · filter_seen: leave out what a query has clicked · cut_ms:
    where the window ends.
    """

    window: TrainingSet
    replay: Replay
    live: bool
    filter_seen: bool
    cut_ms: int


def protocol_of(card: DatasetCard) -> Protocol:
    """How a log is asked where nothing else is said: by its last clicks if its card says so, else live."""
    return "last-out" if card.protocol == "last-out" else "live"


def make_trial(
    clicks: pa.Table,
    profiles: Mapping[str, pa.Table],
    card: DatasetCard,
    protocol: Protocol,
    negatives: int = 4,
    seed: int = 0,
    limit: int | None = None,
    tuning: bool = False,
    filter_seen: bool | None = None,
) -> Trial:
    """Cut a log.

    ``window``: the card's days, then the day after, with the state as at the cut. ``nightly``: the same, but in
    training, too, a day's clicks know what was known when it began. ``last-out``: each query's last click, all
    asked at the cut. ``live``: the last day (where a day of the card is one day) or else the last tenth of the clicks,
    each folded in before the next.

    Args:
        limit: Only the first so many test clicks.
        tuning: Cut one step earlier: a validation set in which no test click is.
        filter_seen: None: where few in the window click an item twice.
    """
    total = len(clicks)
    if protocol == "last-out":
        train, test = _last_out(clicks)
        if tuning:
            train, test = _last_out(train)
        if card.clicks.time_unit == "position":
            # Without what is held out: it would leave a hole, and counters at the cut as low as none was in training.
            train = _side_by_side(train)
    else:
        train, test = _by_time(clicks, card, protocol)
        if tuning:
            clicks = train
            train, test = _by_time(clicks, card, protocol)
    for part, name in ((train, "to learn from"), (test, "to predict")):
        if not len(part):
            raise ProtocolError(
                f"the protocol {protocol} leaves no clicks {name} of the {total:,} of '{card.name}'"
                f"{' for tuning' if tuning else ''}; give more clicks, another --protocol, or another `day` in the card"
            )
    if protocol == "last-out":
        test = _at(test, train["event_time"][-1].as_py() + 1)
    test = test.slice(0, limit)
    nightly_until = _last_day(clicks, card) if protocol == "nightly" else None
    window = make_examples(train, profiles, card, negatives, seed, nightly_until)
    replay = make_replay(test, profiles, card, window.query, window.item, window.query_spec, window.item_spec)
    if filter_seen is None:
        filter_seen = Clicked(window.examples.query_rows, window.examples.item_rows[:, 0]).rarely_twice
    return Trial(window, replay, protocol == "live", filter_seen, int(window.examples.event_time[-1]))


def _by_time(clicks: pa.Table, card: DatasetCard, protocol: Protocol) -> tuple[pa.Table, pa.Table]:
    if protocol == "live" and card.day_ms != 86_400_000:
        at = round(len(clicks) * (1 - LIVE_SHARE))
        return clicks.slice(0, at), clicks.slice(at)
    if not len(clicks):
        return clicks, clicks
    cut = _last_day(clicks, card)
    before, after = split_at(clicks, cut)
    _, window = split_at(before, cut - card.window_days * card.day_ms)
    return window, after


def _last_day(clicks: pa.Table, card: DatasetCard) -> int:
    """When it begins, ms; its end is the end of the last click's second."""
    return clicks["event_time"][-1].as_py() + 1_000 - card.day_ms


def _side_by_side(clicks: pa.Table) -> pa.Table:
    """Positions within a query become moments of one common time: each query's clicks are spread over the whole span.

    Without times, positions would put every query's first clicks before anyone's tenth, and late moments would belong
    to the few queries with many clicks.
    """
    _, queries = number(clicks["query_id"])
    order = np.argsort(queries, kind="stable")
    counts = np.bincount(queries)
    nth = np.empty(len(queries), np.int64)
    nth[order] = np.arange(len(queries)) - np.repeat(np.cumsum(counts) - counts, counts)
    offset = np.random.default_rng(0).random(len(counts))  # no two queries in step
    time = np.floor((nth + offset[queries]) / counts[queries] * SPAN_MS).astype(np.int64) + 1
    clicks = clicks.set_column(clicks.column_names.index("event_time"), "event_time", pa.array(time))
    return clicks.take(pa.array(np.argsort(time, kind="stable")))


def _at(clicks: pa.Table, moment: int) -> pa.Table:
    """The same clicks, all at one moment (ms)."""
    times = pa.array(np.full(len(clicks), moment, np.int64))
    return clicks.set_column(clicks.column_names.index("event_time"), "event_time", times)


def _last_out(clicks: pa.Table) -> tuple[pa.Table, pa.Table]:
    _, queries = number(clicks["query_id"])
    last = np.zeros(len(queries), bool)
    last[len(queries) - 1 - np.unique(queries[::-1], return_index=True)[1]] = True
    return clicks.filter(pa.array(~last)), clicks.filter(pa.array(last))
