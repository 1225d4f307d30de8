"""Clicks after the cut, to be predicted one by one: over the ids that training knew, and those that appear later."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_repo.card import DatasetCard, Side
from model import features, recent_items
from model.event_weights import weights_of
from model.features import InputSpec
from model.replay import ClickRows
from model.scan import Groups
from model.state import EntityState
from training.training_set import category_codes

Array = np.ndarray


@dataclass(frozen=True)
class TestClicks:
    """N test clicks in the order of the fold, and both sides' activity at the cut.

    Ids that training did not know have rows behind those it knew (``trained``). queries, items: their states; nothing
    writes to them · excludes_seen: whether answers leave out what the query has clicked · cut_ms: the end of training ·
    scored: [N] which clicks count; the others are only folded in (None: all count).
    """

    __test__ = False  # not a test of pytest's

    clicks: ClickRows
    queries: EntityState
    items: EntityState
    query_spec: InputSpec
    item_spec: InputSpec
    item_category: Array
    excludes_seen: bool
    cut_ms: int
    scored: Array | None = None

    def __len__(self) -> int:
        return len(self.clicks)

    @cached_property
    def groups(self) -> Groups:
        """The clicks by query."""
        return Groups.of(self.clicks.queries, len(self.queries))

    @cached_property
    def visible(self) -> Array:
        """[N] how many of its query's test clicks come before each click's moment."""
        return self.groups.before_moment(self.clicks.moments)

    @property
    def clicks_before(self) -> Array:
        """[N] clicks that its query had ever made before each click's moment."""
        return self.queries.clicks[self.clicks.queries] + self.visible

    def exists(self, rows: slice, live: bool) -> Array:
        """[B, I] which items could be answered to some clicks: those that exist before their moments, or at the cut."""
        if live:
            return self.items.since[None, :] < self.clicks.times[rows, None]
        known = (self.items.since < self.cut_ms) & (np.arange(len(self.items)) < self.items.trained)
        return np.broadcast_to(known, (rows.stop - rows.start, len(known)))

    def seen(self, rows: slice) -> tuple[Array, Array]:
        """What the queries of some clicks remember of before each moment: pairs (place in ``rows``, item row)."""
        rings = self.queries.recent_items
        history = recent_items.before(
            self.groups, self.visible, self.clicks.items, rings, self.queries.clicks, rings.shape[1], rows
        )
        at, slot = np.nonzero(history >= 0)
        return at, history[at, slot]


def make_test(
    test: pa.Table, catalogues: Mapping[str, pa.Table], card: DatasetCard, queries: EntityState, items: EntityState,
    query_spec: InputSpec, item_spec: InputSpec, excludes_seen: bool, cut_ms: int,
) -> TestClicks:  # fmt: skip
    """Test clicks over the states at the cut.

    Args:
        test: query_id, item_id, event_time; in the order of the fold.
        catalogues: ``query`` and ``item``, for the ids that are new.
    """
    times = test["event_time"].to_numpy().astype(np.int64)
    queries = extend(queries, pc.unique(test["query_id"]), catalogues["query"], card.query, query_spec)
    new = pc.unique(test["item_id"])
    created: dict[str, int] = {}
    if card.item.created and len(catalogues["item"]):
        listed = catalogues["item"].select(["id", card.item.created])
        until = int(times.max(initial=0))
        soon = listed.filter(pc.and_kleene(pc.greater_equal(listed[1], cut_ms), pc.less(listed[1], until)))
        created = dict(zip(soon["id"].to_pylist(), soon[1].to_pylist(), strict=True))
        new = pc.unique(pa.concat_arrays([new, soon["id"].combine_chunks().cast(pa.string())]))
    trained = len(items)
    items = extend(items, new, catalogues["item"], card.item, item_spec)
    rows = items.rows(test["item_id"].to_pylist())
    # A new item exists from the earlier of its creation and its first click.
    since = np.concatenate([items.since[:trained], np.full(len(items) - trained, np.iinfo(np.int64).max)])
    np.minimum.at(since, rows, times)
    if created:
        late = items.rows(created)
        np.minimum.at(since, late, np.fromiter(created.values(), np.int64))
    items.columns["since"] = since
    moments = np.arange(len(times)) if card.clicks.ties == "order" else times
    weights = weights_of(test, card.clicks.rule)
    clicks = ClickRows(queries.rows(test["query_id"].to_pylist()), rows, times, moments, weights)
    category = category_codes(card.item, item_spec, items)
    return TestClicks(clicks, queries, items, query_spec, item_spec, category, excludes_seen, cut_ms)


def extend(known: EntityState, ids: pa.Array, catalogue: pa.Table, side: Side, spec: InputSpec) -> EntityState:
    """A copy of a state, with those of some ids that are new behind the known ones, each with its profile."""
    state, size = known.copy(), len(known)
    state.add(ids.to_pylist())
    new = pa.array(state.ids[size:], pa.string())
    index = pc.index_in(new, catalogue["id"].combine_chunks().cast(pa.string()))
    columns = {name: catalogue[name].combine_chunks().take(index) for name in side.tower_features}
    profile = features.encode(spec, columns, len(new))
    state.put(np.arange(size, len(state)), codes=profile.codes, numbers=profile.numbers, times=profile.times)
    return state
