"""Sample S negatives for every positive (paper, section 2.3): items of the corpus of that moment that the query did
not click in the window.
"""

import zlib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from feature_repo.card import DatasetCard


def corpus(clicks: DataFrame, profiles: DataFrame, card: DatasetCard, until_ms: int) -> DataFrame:
    """The items that exist before ``until_ms`` and since when: ``item_id, since`` (ms), in order of ``since``.

    An item exists from its creation, where the card says which feature tells it; else from its first click; an item
    of a catalogue that tells no times has always existed.
    """
    created = F.col(card.item.created) if card.item.created else F.lit(0).cast("long")
    listed = profiles.select("item_id", created.alias("created"))
    first = clicks.groupBy("item_id").agg(F.min("event_time").alias("first"))
    since = F.least(F.coalesce("created", "first"), F.coalesce("first", "created")).alias("since")
    both = listed.join(first, "item_id", "full").select("item_id", since)
    return both.where(F.col("since") < until_ms).orderBy("since", "item_id")


@lru_cache(maxsize=1)
def _read_corpus(folder: str) -> tuple[np.ndarray, np.ndarray, dict[str, int]]:
    table = pq.read_table(folder).sort_by([("since", "ascending"), ("item_id", "ascending")])
    ids = np.array(table["item_id"].to_pylist(), dtype=object)
    return ids, table["since"].to_numpy(), {item: index for index, item in enumerate(ids)}


def draw(clicked: np.ndarray, exist: np.ndarray, negatives: int, rng: np.random.Generator) -> np.ndarray:
    """Negatives for one query's positives: uniform, with replacement, over what exists and was not clicked.

    Args:
        clicked: Sorted corpus indices of the query's items in the window.
        exist: [R] for each positive, how many items of the corpus (in order of creation) existed.

    Returns:
        [R, S] corpus indices; a row of −1 where nothing is left to draw from.

    A uniform draw from the n − k items left is mapped past the k clicked ones below it, so nothing is rejected: the
    j-th clicked index c_j has c_j − j items left below it.
    """
    below = np.searchsorted(clicked, exist)  # clicked items that existed: k
    left = exist - below
    index = np.floor(rng.random((len(exist), negatives)) * left[:, None]).astype(np.int64)
    index += np.searchsorted(clicked - np.arange(len(clicked)), index, side="right")
    index[left == 0] = -1
    return index


def with_negatives(positives: DataFrame, corpus_folder: Path, negatives: int, seed: int) -> DataFrame:
    """Positives with ``candidates``: the clicked item and its S negatives.

    Args:
        positives: ``event_id, query_id, item_id, event_time`` of the window.
        corpus_folder: Parquet of :func:`corpus`; every worker reads it, so it lies where all can.

    A query's draws depend on the seed and the query alone, not on how Spark cut the data. A positive that leaves
    nothing to draw from is dropped, and the data card counts it.
    """
    folder = str(corpus_folder)

    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        filled = list(batches)
        if not filled:
            return
        ids, since, index_of = _read_corpus(folder)
        table = pa.Table.from_batches(filled)
        queries = table["query_id"].combine_chunks().dictionary_encode()
        group = queries.indices.to_numpy(zero_copy_only=False)
        names = queries.dictionary.to_pylist()
        items = np.array([index_of[item] for item in table["item_id"].to_pylist()], np.int64)
        exist = np.searchsorted(since, table["event_time"].to_numpy(), side="right")
        drawn = np.empty((len(items), negatives), np.int64)
        bounds = np.flatnonzero(np.r_[True, group[1:] != group[:-1], True])  # rows are sorted by query
        for start, stop in zip(bounds[:-1], bounds[1:], strict=True):
            rng = np.random.default_rng([seed, zlib.crc32(names[group[start]].encode())])
            drawn[start:stop] = draw(np.unique(items[start:stop]), exist[start:stop], negatives, rng)
        keep = drawn[:, 0] >= 0
        candidates = ids[np.concatenate([items[:, None], drawn], axis=1)[keep]]
        offsets = pa.array(np.arange(len(candidates) + 1, dtype=np.int32) * (negatives + 1))
        column = pa.ListArray.from_arrays(offsets, pa.array(candidates.ravel(), pa.string()))
        yield from table.filter(pa.array(keep)).append_column("candidates", column).to_batches(max_chunksize=65_536)

    columns = ["event_id", "query_id", "item_id", "event_time"]
    by_query = (
        positives.select(*columns).repartition("query_id").sortWithinPartitions("query_id", "event_time", "event_id")
    )
    return by_query.mapInArrow(
        run, "event_id string, query_id string, item_id string, event_time long, candidates array<string>"
    )
