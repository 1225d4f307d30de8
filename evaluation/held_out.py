"""The newest clicks of a training set, held out from it, to choose settings by: no test click is among them."""

from dataclasses import replace

import numpy as np

from evaluation.test_clicks import TestClicks
from model.replay import ClickRows
from model.scan import Groups
from model.state import EntityState
from training.build import NEVER, spread
from training.training_set import TrainingSet

Array = np.ndarray
SHARE = 0.1
AT_MOST = 10_000  # clicks


def hold_out(data: TrainingSet) -> tuple[TrainingSet, TestClicks] | None:
    """A training set without its newest clicks, and those as test clicks, as the card's protocol has it.

    By time the newest tenth, whole moments, of which the first :data:`AT_MOST` are predicted. ``last-out``: the newest
    click of so many queries that have another one. None where nothing is left to learn from or to predict.
    """
    return _last_out(data) if data.last_out else _tail(data)


def _tail(data: TrainingSet) -> tuple[TrainingSet, TestClicks] | None:
    clicks = data.clicks
    if len(clicks) < 2:
        return None
    cut_ms = int(clicks.times[-max(1, round(len(clicks) * SHARE))])
    at = int(np.searchsorted(clicks.times, cut_ms))
    if not at:
        return None
    known = int(np.searchsorted(data.items.since, cut_ms))  # items stand in the order of it
    kept = replace(
        data.with_clicks(clicks[:at], data.negatives[:at]), items=_first(data.items, known),
        item_category=data.item_category[:known],
    )  # fmt: skip
    queries, trained = kept.at_cut
    items = data.items.copy()
    items.put(np.arange(known), **{name: getattr(trained, name) for name in ("clicks", "counters", "last_click")})
    items.trained = known
    return kept, TestClicks(
        clicks[at : at + AT_MOST], queries, items, data.query_spec, data.item_spec, data.item_category,
        data.excludes_seen, cut_ms,
    )  # fmt: skip


def _last_out(data: TrainingSet) -> tuple[TrainingSet, TestClicks] | None:
    clicks = data.clicks
    groups = Groups.of(clicks.queries, len(data.queries))
    count = groups.counts
    several = np.flatnonzero(count > 1)
    asked = np.zeros(len(count), bool)
    asked[np.random.default_rng(0).permutation(several)[:AT_MOST]] = True
    held = asked[clicks.queries] & (groups.rank == count[clicks.queries] - 1)
    if not held.any():
        return None
    rest, negatives, items = _where(clicks, ~held), data.negatives[~held], data.items.copy()
    if data.card.clicks.timeless:  # else the clicks that are gone would leave a hole before the cut
        times = spread(data.queries.ids, rest.queries)
        order = np.argsort(times, kind="stable")
        rest, negatives = replace(_where(rest, order), times=times[order]), negatives[order]
        rest = replace(rest, moments=np.arange(len(rest)) if data.card.clicks.ties == "order" else rest.times)
        since = np.full(len(items), NEVER)
        np.minimum.at(since, rest.items, rest.times)
        items.columns["since"] = since
    else:
        gone = (items.clicks == 0) & (np.bincount(rest.items, minlength=len(items)) == 0)
        gone &= np.bincount(clicks.items, minlength=len(items)) > 0
        items.columns["since"] = np.where(gone, NEVER, items.since)
    kept = replace(data.with_clicks(rest, negatives), items=items)
    cut_ms = int(rest.times[-1]) + 1
    asked_of = _where(clicks, held)
    moment = np.full(len(asked_of), cut_ms)
    return kept, TestClicks(
        replace(asked_of, times=moment, moments=moment), *kept.at_cut, data.query_spec, data.item_spec,
        data.item_category, data.excludes_seen, cut_ms,
    )  # fmt: skip


def _where(clicks: ClickRows, chosen: Array) -> ClickRows:
    weights = None if clicks.weights is None else clicks.weights[chosen]
    return ClickRows(
        clicks.queries[chosen], clicks.items[chosen], clicks.times[chosen], clicks.moments[chosen], weights
    )


def _first(state: EntityState, size: int) -> EntityState:
    """A state of the first rows alone."""
    return EntityState(state.ids[:size], **{name: column[:size] for name, column in state.columns.items()})
