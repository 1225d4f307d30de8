"""Sample S negatives for every positive (paper, section 2.3): items of the corpus of that moment that the query did
not click in the window. Uniform, weighted by popularity, or of the positive's own category, mixed by share.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from feature_repo.card import DatasetCard
from spark_jobs.config import NegativeMix

Array = np.ndarray


def corpus(clicks: DataFrame, newest: DataFrame, profiles: DataFrame, card: DatasetCard, until_ms: int) -> DataFrame:
    """The items that exist before ``until_ms``, in order of since when:

    ``item_id, since`` (ms) ``, clicks`` (in the window) ``, category`` (the first, where there are several).

    An item exists from its creation, where the card says which feature tells it; else from its first click; an item
    of a catalogue that tells no times has always existed.

    Args:
        clicks: Those of the window. newest: Each item's activity as of ``until_ms``.
    """
    created = F.col(card.item.created) if card.item.created else F.lit(0).cast("long")
    category = F.lit(None).cast("string")
    if card.item.category:
        category = F.col(card.item.category)
        if card.item.features[card.item.category].kind == "categories":
            category = F.try_element_at(category, F.lit(1))
    listed = profiles.select("item_id", created.alias("created"), category.alias("category"))
    counted = clicks.groupBy("item_id").agg(F.count("*").alias("clicks"))
    both = listed.join(newest.select("item_id", "first"), "item_id", "full").join(counted, "item_id", "left")
    since = F.least(F.coalesce("created", "first"), F.coalesce("first", "created")).alias("since")
    clicked = F.coalesce("clicks", F.lit(0)).alias("clicks")
    known = both.select("item_id", since, clicked, "category").where(F.col("since") < until_ms)
    return known.orderBy("since", "item_id")


@dataclass(frozen=True)
class Urn:
    """Items in some order with integer weights, to draw from: whole weights, so that what is left can be counted.

    cumulative: [n+1] weight of all items before each.
    """

    cumulative: Array

    @classmethod
    def of(cls, weights: Array) -> "Urn":
        return cls(np.r_[0, np.cumsum(weights.astype(np.int64))])

    def draw(self, groups: Array, taken: Array, low: Array, high: Array, uniform: Array) -> Array:
        """Positions drawn with replacement, by weight, for R rows of S draws each.

        Args:
            groups: [R] which set of taken items a row must avoid: numbers from 0.
            taken: [K] ``group · n + position``, sorted and distinct.
            low, high: [R] a row draws from the positions ``low <= p < high``.
            uniform: [R, S] random numbers in [0, 1).

        Returns:
            [R, S] positions; a row of −1 where no weight is left.

        Nothing is rejected. With the taken items cut out, the weights of what is left line up without gaps; a number
        drawn there is moved up by the weight of the group's taken items at or below it.
        """
        size = len(self.cumulative) - 1
        total = self.cumulative[-1] + 1
        group, place = np.divmod(taken, size)
        removed = np.r_[0, np.cumsum(self.cumulative[place + 1] - self.cumulative[place])]  # over all groups
        first = np.searchsorted(group, groups)
        below, upto = (np.searchsorted(taken, groups * size + bound) for bound in (low, high))
        left = self.cumulative[high] - self.cumulative[low] - (removed[upto] - removed[below])
        base = self.cumulative[low] - (removed[below] - removed[first])
        mark = np.floor(uniform * left[:, None]).astype(np.int64) + base[:, None]
        gap = self.cumulative[place] - (removed[:-1] - removed[np.searchsorted(group, group)])  # where each was cut out
        passed = np.searchsorted(group * total + gap, groups[:, None] * total + mark, side="right")
        mark += removed[passed] - removed[first][:, None]
        drawn = np.searchsorted(self.cumulative, mark, side="right") - 1
        drawn[left <= 0] = -1
        return drawn


@dataclass(frozen=True)
class Corpus:
    """The items that negatives are drawn from, in order of existence, and an urn a kind of draw.

    by_category: [n] the items' numbers, ordered by category, then existence · place: its inverse · category: [n] code,
    −1 where unknown.
    """

    ids: pa.Array
    since: Array
    category: Array
    by_category: Array
    place: Array
    same: Urn
    popular: Urn

    @classmethod
    def read(cls, folder: Path | str, power: float) -> "Corpus":
        table = pq.read_table(folder).sort_by([("since", "ascending"), ("item_id", "ascending")])
        codes = table["category"].combine_chunks().dictionary_encode().indices
        category = pc.fill_null(codes, -1).to_numpy(zero_copy_only=False).astype(np.int64)
        by_category = np.argsort(category, kind="stable")
        place = np.empty_like(by_category)
        place[by_category] = np.arange(len(place))
        # A thousand to the click: the power is rounded, and rounding must not matter.
        weights = np.round(1_000 * table["clicks"].to_numpy().astype(np.float64) ** power)
        return cls(
            table["item_id"].combine_chunks(), table["since"].to_numpy(), category, by_category, place,
            Urn.of(np.ones(len(table))), Urn.of(np.where(table["clicks"].to_numpy() > 0, weights, 0)),
        )  # fmt: skip

    def draw(self, items: Array, groups: Array, times: Array, mix: NegativeMix, uniform: Array, kind: Array) -> Array:
        """Negatives of R positives: [R, S] item numbers, −1 where nothing is left to draw.

        Args:
            items: [R] the positives' item numbers.
            groups: [R] their queries, numbered from 0; what a query has clicked in any row it is not drawn for any.
            times: [R] ms; only what existed then is drawn.
            uniform, kind: [R, S] random numbers: which item, and which kind of draw.

        Where a kind has nothing left (an unknown category, no clicked item) the draw is uniform.
        """
        exist = np.searchsorted(self.since, times, side="right")
        start, size = np.zeros_like(exist), len(self.ids)
        taken = np.unique(groups * size + items)
        drawn = self.same.draw(groups, taken, start, exist, uniform)
        edges = np.cumsum([mix.uniform, mix.popular, mix.category]) / mix.total
        if mix.popular:
            found = self.popular.draw(groups, taken, start, exist, uniform)
            chosen = (kind >= edges[0]) & (kind < edges[1]) & (found >= 0)
            drawn[chosen] = found[chosen]
        if mix.category:
            row, item = np.divmod(taken, size)
            inside = np.sort(row * size + self.place[item])
            code = self.category[items]
            key = self.category[self.by_category] * size + self.by_category  # ascending
            low, high = np.searchsorted(key, code * size), np.searchsorted(key, code * size + exist)
            found = self.same.draw(groups, inside, low, high, uniform)
            chosen = (kind >= edges[1]) & (found >= 0) & (code >= 0)[:, None]
            drawn[chosen] = self.by_category[found[chosen]]
        return drawn


def random_numbers(hashes: Array, width: int) -> Array:
    """[R] 64-bit hashes → [R, width] uniform numbers in [0, 1): splitmix64, which needs no order of rows."""
    with np.errstate(over="ignore"):
        z = hashes.astype(np.uint64)[:, None] + np.arange(1, width + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    return (z >> np.uint64(11)) * 2.0**-53


def with_negatives(positives: DataFrame, corpus_folder: Path, negatives: int, mix: NegativeMix, seed: int) -> DataFrame:
    """Positives with ``candidates``: the clicked item and its S negatives.

    Args:
        positives: ``event_id, query_id, item_id, event_time`` of the window.
        corpus_folder: Parquet of :func:`corpus`; every worker reads it, so it lies where all can.

    A click's draws depend on the seed and its event id alone, not on how Spark cut the data. A positive that leaves
    nothing to draw from is dropped, and the data card counts it.
    """
    folder = str(corpus_folder)

    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        filled = [batch for batch in batches if len(batch)]
        if not filled:
            return
        known = Corpus.read(folder, mix.popularity_power)
        table = pa.Table.from_batches(filled)
        groups = table["query_id"].combine_chunks().dictionary_encode().indices.to_numpy().astype(np.int64)
        items = pc.index_in(table["item_id"].combine_chunks(), known.ids).to_numpy().astype(np.int64)
        numbers = random_numbers(table["hash"].to_numpy(), 2 * negatives)
        drawn = known.draw(
            items, groups, table["event_time"].to_numpy(), mix, numbers[:, :negatives], numbers[:, negatives:]
        )
        keep = drawn[:, 0] >= 0
        rows = np.concatenate([items[:, None], drawn], axis=1)[keep]
        offsets = pa.array(np.arange(len(rows) + 1, dtype=np.int32) * (negatives + 1))
        column = pa.ListArray.from_arrays(offsets, known.ids.take(pa.array(rows.ravel())))
        kept = table.drop_columns(["hash", "item_id"]).filter(pa.array(keep))
        yield from kept.append_column("candidates", column).to_batches(max_chunksize=65_536)

    columns = ["event_id", "query_id", "item_id", "event_time"]
    by_query = positives.select(*columns, F.xxhash64("event_id", F.lit(seed)).alias("hash")).repartition("query_id")
    return by_query.mapInArrow(run, "event_id string, query_id string, event_time long, candidates array<string>")
