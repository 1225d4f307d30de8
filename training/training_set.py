"""The training set: a window's clicks as integers with their negatives, and both sides as of the window's start.

``training_sets/<date>/`` holds three tables, as Spark writes them and :func:`training.build.build_tables` makes them:

``clicks``    in the order of the fold: query and item (rows of the other two), event_time, negatives (S item rows),
              and weight, what each counts as, where the card's types of events weigh
``queries``   id, the profile, and the activity from before the window; recent_items are rows of ``items``
``items``     the same, in the order of ``since``, from when each exists

Everything that changes with a click (counters, recent items, augmented vectors) follows from these by
:mod:`model.replay`, so nothing of it is written a click.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from feature_repo.card import DatasetCard, Side
from model import features
from model.features import InputSpec
from model.recent_items import from_lists
from model.replay import ClickRows, Replay
from model.settings.model import ACTIVITY
from model.state import EntityState
from training.block import Block
from training.click_stream import ClickStream, TrainingSetError
from training.clicks_in_memory import ClicksInMemory

Array = np.ndarray
PROFILE = "profile__"
"""Prefix of the columns that hold the catalogue's features: a feature may have any name."""
RARE_REPEATS = 0.05
AT_ONCE = 65_536  # clicks counted at a time
REPEATS_OF = 1_000_000
"""Of about so many clicks repeats are counted: all clicks of one query in so many."""


class Tables(NamedTuple):
    """The three tables of a training set."""

    clicks: pa.Table
    queries: pa.Table
    items: pa.Table


class ClickSource(Protocol):
    """N clicks in the order of the fold, from files or from arrays."""

    def __len__(self) -> int: ...

    @property
    def width(self) -> int:
        """S: how many negatives a click has."""

    def blocks(self, size: int, start: int = 0) -> Iterator[Block]:
        """See :meth:`training.click_stream.ClickStream.blocks`."""


@dataclass(frozen=True)
class TrainingSet:
    """N clicks in the order of the fold, and both sides before the first of them."""

    source: ClickSource
    queries: EntityState
    items: EntityState
    query_spec: InputSpec
    item_spec: InputSpec
    item_category: Array
    """[I] the code of each item's category, which alignment groups by; 0: unknown."""
    excludes_seen: bool
    """Whether answers leave out what a query has clicked: by default, where less than 5 % of the clicks are repeats."""
    card: DatasetCard
    """The log's."""
    repeats: float = 0.0
    """The share of the clicks that repeat an earlier one of the same query and item."""

    def __len__(self) -> int:
        return len(self.source)

    def blocks(self, size: int, start: int = 0) -> Iterator[Block]:
        """The clicks in blocks of at least ``size``, from the click ``start`` on; no moment is split."""
        return self.source.blocks(size, start)

    @property
    def width(self) -> int:
        """S: how many negatives a click has."""
        return self.source.width

    @cached_property
    def _held(self) -> Block:
        """All clicks, as one block."""
        if isinstance(self.source, ClicksInMemory):
            return Block(0, self.source.clicks, self.source.negatives)
        return next(self.source.blocks(len(self)))

    @property
    def clicks(self) -> ClickRows:
        """All clicks, held in memory: for small windows, and for models that learn from them in another order."""
        return self._held.clicks

    @property
    def negatives(self) -> Array:
        """[N, S] item rows of all clicks, held in memory: drawn among the items that existed at each click's moment
        (−1: none did)."""
        return self._held.negatives

    def with_clicks(self, clicks: ClickRows, negatives: Array) -> "TrainingSet":
        """The same set with other clicks."""
        return replace(self, source=ClicksInMemory(clicks, negatives))

    @property
    def last_out(self) -> bool:
        """Whether the card's protocol predicts each query's last click, and not the newest day."""
        return self.card.protocol == "last-out" or self.card.clicks.timeless

    @cached_property
    def at_cut(self) -> tuple[EntityState, EntityState]:
        """Both sides' activity after all clicks of the window, without augmented vectors."""
        replay = Replay(self.queries.copy(), self.items.copy(), self.query_spec, self.item_spec, ACTIVITY)
        for block in self.blocks(AT_ONCE):
            replay.count(block.clicks)
        return replay.queries, replay.items

    @classmethod
    def of(cls, tables: Tables, card: DatasetCard) -> "TrainingSet":
        """A set of tables in memory.

        Raises:
            TrainingSetError: a column is missing.
        """
        try:
            negatives = _whole(tables.clicks["negatives"])
            times = tables.clicks["event_time"].to_numpy()
            weights = tables.clicks["weight"].to_numpy() if "weight" in tables.clicks.column_names else None
            clicks = ClickRows(
                tables.clicks["query"].to_numpy(), tables.clicks["item"].to_numpy(), times,
                np.arange(len(times)) if card.clicks.ties == "order" else times, weights,
            )  # fmt: skip
        except KeyError as error:
            raise TrainingSetError(f"a table of the training set lacks the column {error}") from None
        flat = pc.list_flatten(negatives).to_numpy()
        width = len(flat) // max(len(clicks), 1)
        return cls._of(ClicksInMemory(clicks, flat.reshape(len(clicks), width)), tables.queries, tables.items, card)

    @classmethod
    def load(cls, folder: Path, card: DatasetCard) -> "TrainingSet":
        """``training_sets/<date>``, whose clicks stay where they are: see :class:`training.click_stream.ClickStream`.

        Raises:
            TrainingSetError: a file or a column is missing.
        """
        return cls._of(ClickStream(folder, card), _read(folder / "queries"), _read(folder / "items"), card)

    @classmethod
    def _of(cls, source: ClickSource, queries: pa.Table, items: pa.Table, card: DatasetCard) -> "TrainingSet":
        try:
            item_state, item_spec = _side(items, card.item)
            query_state, query_spec = _side(queries, card.query)
            history = _whole(queries["recent_items"])
            rings = from_lists(
                pc.list_flatten(history).to_numpy(), history.offsets.to_numpy(), query_state.clicks, card.history
            )
            query_state.columns["recent_items"] = rings
            item_state.columns["since"] = items["since"].to_numpy()
        except KeyError as error:
            raise TrainingSetError(f"a table of the training set lacks the column {error}") from None
        repeats = share_of_repeats(source, len(item_state))
        category = category_codes(card.item, item_spec, item_state)
        return cls(
            source, query_state, item_state, query_spec, item_spec, category, repeats < RARE_REPEATS, card, repeats
        )


def share_of_repeats(source: ClickSource, items: int) -> float:
    """The share of clicks that repeat an earlier one of the same query and item.

    Of all clicks, or where these are more than :data:`REPEATS_OF`, of those of one query in so many.
    """
    one_in = -(-len(source) // REPEATS_OF) or 1
    pairs, clicks = [np.empty(0, np.int64)], 0
    for block in source.blocks(AT_ONCE):
        kept = block.clicks.queries % one_in == 0
        of = block.clicks.queries[kept].astype(np.int64) * (items + 1) + block.clicks.items[kept]
        pairs.append(np.unique(of))
        clicks += len(of)
    return 1 - len(np.unique(np.concatenate(pairs))) / max(clicks, 1)


def _read(folder: Path) -> pa.Table:
    files = sorted(folder.rglob("*.parquet"))
    if not files:
        raise TrainingSetError(f"{folder} has no Parquet file; run the night again with --again")
    return pa.concat_tables([pq.read_table(file, partitioning=None) for file in files])


def _side(table: pa.Table, side: Side) -> tuple[EntityState, InputSpec]:
    columns = {name: _whole(table[PROFILE + name]) for name in side.tower_features}
    spec = features.fit(side, columns)
    profile = features.encode(spec, columns, len(table))
    counters = pc.list_flatten(_whole(table["counters"])).to_numpy(zero_copy_only=False)
    state = EntityState(
        table["id"],
        codes=profile.codes, numbers=profile.numbers, times=profile.times,
        clicks=table["clicks"].to_numpy(), last_click=table["last_click"].to_numpy(),
        counters=counters.reshape(len(table), len(spec.half_lives_ms)).astype(np.float32),
    )  # fmt: skip
    return state, spec


def category_codes(side: Side, spec: InputSpec, items: EntityState) -> Array:
    """[I] the code of each item's category (the first, where there are several); 0: unknown."""
    at = 0
    for field in spec.categories:
        if field.name == side.category:
            return items.codes[:, at].astype(np.int64)
        at += field.slots
    return np.zeros(len(items), np.int64)


def _whole(column: pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
