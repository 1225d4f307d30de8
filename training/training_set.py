"""The training set: a window's clicks as integers with their negatives, and both sides as of the window's start.

``training_sets/<date>/`` holds three tables, as Spark writes them and :func:`training.build.build_tables` makes them:

``clicks``    in the order of the fold: query and item (rows of the other two), event_time, negatives (S item rows),
              and weight, what each counts as, where the card's types of events weigh
``queries``   id, the profile, and the activity from before the window; recent_items are rows of ``items``
``items``     the same, in the order of ``since``, from when each exists

Everything that changes with a click (counters, recent items, augmented vectors) follows from these by
:mod:`model.replay`, so nothing of it is written a click.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

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

Array = np.ndarray
PROFILE = "profile__"
"""Prefix of the columns that hold the catalogue's features: a feature may have any name."""
RARE_REPEATS = 0.05
AT_ONCE = 65_536  # clicks counted at a time


class TrainingSetError(ValueError):
    """A training set is not what its contract says. The message names the file and the column."""


class Tables(NamedTuple):
    """The three tables of a training set."""

    clicks: pa.Table
    queries: pa.Table
    items: pa.Table


@dataclass(frozen=True)
class TrainingSet:
    """N clicks in the order of the fold, and both sides before the first of them.

    negatives: [N, S] item rows, drawn among the items that existed at each click's moment (−1: none did).
    """

    clicks: ClickRows
    negatives: Array
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

    @property
    def last_out(self) -> bool:
        """Whether the card's protocol predicts each query's last click, and not the newest day."""
        return self.card.protocol == "last-out" or self.card.clicks.timeless

    @cached_property
    def at_cut(self) -> tuple[EntityState, EntityState]:
        """Both sides' activity after all clicks of the window, without augmented vectors."""
        replay = Replay(self.queries.copy(), self.items.copy(), self.query_spec, self.item_spec, ACTIVITY)
        for rows in self.clicks.blocks(AT_ONCE):
            replay.count(self.clicks[rows])
        return replay.queries, replay.items

    @classmethod
    def of(cls, tables: Tables, card: DatasetCard) -> "TrainingSet":
        """Arrays of a set's tables.

        Raises:
            TrainingSetError: a column is missing.
        """
        try:
            items, item_spec = _side(tables.items, card.item)
            queries, query_spec = _side(tables.queries, card.query)
            history = _whole(tables.queries["recent_items"])
            rings = from_lists(
                pc.list_flatten(history).to_numpy(), history.offsets.to_numpy(), queries.clicks, card.history
            )
            queries.columns["recent_items"] = rings
            items.columns["since"] = tables.items["since"].to_numpy()
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
        category = category_codes(card.item, item_spec, items)
        pairs = clicks.queries.astype(np.int64) * (len(items) + 1) + clicks.items
        repeats = 1 - len(np.unique(pairs)) / max(len(pairs), 1)
        return cls(
            clicks, flat.reshape(len(clicks), width), queries, items, query_spec, item_spec, category,
            repeats < RARE_REPEATS, card, repeats,
        )  # fmt: skip

    @classmethod
    def load(cls, folder: Path, card: DatasetCard) -> "TrainingSet":
        """Read ``training_sets/<date>``."""
        return cls.of(load_tables(folder), card)


def load_tables(folder: Path) -> Tables:
    """The tables as they lie in ``training_sets/<date>``; files of a folder follow each other in the fold's order."""
    return Tables(*(_read(folder / name) for name in Tables._fields))


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
        table["id"].to_pylist(),
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
