"""The clicks of a training set as a stream: a row group at a time, in the order of the fold, the next one on its way.

What an epoch holds of the clicks is thus a batch and two pieces of a row group, however long the window is. The blocks
are those of :meth:`model.replay.ClickRows.blocks` over the whole set.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from feature_repo.card import DatasetCard
from model.replay import ClickRows
from training.block import Block

Array = np.ndarray
AT_ONCE = 65_536  # clicks that are decoded at a time
COLUMNS = ("query", "item", "event_time", "negatives")


class TrainingSetError(ValueError):
    """A training set is not what its contract says. The message names the file and the column."""


class ClickStream:
    """``clicks`` of ``training_sets/<date>``; each :meth:`blocks` is a pass over it.

    Args:
        folder: The set's folder.
        at_once: Clicks decoded at a time.

    Raises:
        TrainingSetError: there is no file, or one lacks a column.
    """

    def __init__(self, folder: Path, card: DatasetCard, at_once: int = AT_ONCE):
        self.files = sorted((folder / "clicks").rglob("*.parquet"))
        self.ordered, self.at_once, self.sizes = card.clicks.ties == "order", at_once, list[int]()
        if not self.files:
            raise TrainingSetError(f"{folder / 'clicks'} has no Parquet file; run the night again with --again")
        for file in self.files:
            metadata = pq.read_metadata(file)
            if missing := set(COLUMNS) - set(metadata.schema.to_arrow_schema().names):
                raise TrainingSetError(f"{file} lacks the column {', '.join(sorted(missing))}")
            self.sizes.append(metadata.num_rows)

    def __len__(self) -> int:
        return sum(self.sizes)

    @cached_property
    def width(self) -> int:
        """S: how many negatives a click has."""
        return next((piece.negatives.shape[1] for piece in self._pieces(0)), 0)

    def blocks(self, size: int, start: int = 0) -> Iterator[Block]:
        """Blocks of at least ``size`` clicks, except the last; no moment is split.

        Args:
            start: The number of the first click, where a block of the same size begins; those before it are not read.
        """
        held = None
        for piece in self._ahead(start):
            held = held.followed_by(piece) if held else piece
            moments = np.arange(len(held)) if self.ordered else held.times
            begins = np.flatnonzero(np.r_[True, moments[1:] != moments[:-1]])
            at = 0
            while True:
                later = int(np.searchsorted(begins, at + size))
                if later == len(begins):  # the moment that is being read may go on in the next piece
                    break
                yield self._block(start + at, held.part(at, int(begins[later])))
                at = int(begins[later])
            start, held = start + at, held.part(at, len(held))
        if held:
            yield self._block(start, held)

    def _block(self, start: int, piece: "_Piece") -> Block:
        moments = np.arange(start, start + len(piece)) if self.ordered else piece.times
        clicks = ClickRows(piece.queries, piece.items, piece.times, moments, piece.weights)
        return Block(start, clicks, piece.negatives)

    def _ahead(self, start: int) -> Iterator["_Piece"]:
        """The pieces, of which one is decoded while the one before it is in use."""
        pieces = self._pieces(start)
        with ThreadPoolExecutor(1, "read-clicks") as reader:
            coming = reader.submit(next, pieces, None)
            while (piece := coming.result()) is not None:
                coming = reader.submit(next, pieces, None)
                yield piece

    def _pieces(self, start: int) -> Iterator["_Piece"]:
        for file, size in zip(self.files, self.sizes, strict=True):
            if start >= size:
                start -= size
                continue
            with pq.ParquetFile(file, memory_map=True) as opened:
                names = [name for name in (*COLUMNS, "weight") if name in opened.schema_arrow.names]
                group = 0
                while start >= (rows := opened.metadata.row_group(group).num_rows):
                    group, start = group + 1, start - rows
                groups = range(group, opened.num_row_groups)
                for batch in opened.iter_batches(self.at_once, groups, names, use_threads=False):
                    piece = _Piece.of(batch)
                    skipped = min(start, len(piece))
                    start -= skipped
                    if skipped < len(piece):
                        yield piece.part(skipped, len(piece))


@dataclass(frozen=True)
class _Piece:
    queries: Array
    items: Array
    times: Array
    negatives: Array
    weights: Array | None

    @classmethod
    def of(cls, batch: pa.RecordBatch) -> "_Piece":
        flat = pc.list_flatten(batch["negatives"]).to_numpy()
        queries, items, times = (batch[name].to_numpy() for name in COLUMNS[:3])
        weights = batch["weight"].to_numpy() if "weight" in batch.schema.names else None
        return cls(queries, items, times, flat.reshape(len(batch), len(flat) // max(len(batch), 1)), weights)

    def __len__(self) -> int:
        return len(self.times)

    def part(self, start: int, stop: int) -> "_Piece":
        chosen = slice(start, stop)
        weights = None if self.weights is None else self.weights[chosen]
        return _Piece(self.queries[chosen], self.items[chosen], self.times[chosen], self.negatives[chosen], weights)

    def followed_by(self, other: "_Piece") -> "_Piece":
        both = (self, other)
        weights = None
        if self.weights is not None and other.weights is not None:
            weights = np.concatenate([self.weights, other.weights])
        return _Piece(
            np.concatenate([piece.queries for piece in both]),
            np.concatenate([piece.items for piece in both]),
            np.concatenate([piece.times for piece in both]),
            np.concatenate([piece.negatives for piece in both]),
            weights,
        )
