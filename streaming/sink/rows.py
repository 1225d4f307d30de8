"""Rows for the online store: those of a changelog and of a bundle, each with the stamp that decides which stays."""

from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa

from model.bundle import Bundle
from model.ids import of_somebody
from model.state import ItemUpdate, QueryUpdate
from streaming.kafka.changelog import Change
from streaming.kafka.partitioner import RowPartitions
from streaming.stages import item_stage, query_stage

STAMP = "stamp"


def with_stamps(rows: pa.RecordBatch, stamps: np.ndarray) -> pa.RecordBatch:
    """Rows with a column more: the stamp of each (µs)."""
    plain = rows.replace_schema_metadata()
    return pa.RecordBatch.from_arrays(
        [*plain.columns, pa.array(stamps, pa.int64())], schema=plain.schema.append(pa.field(STAMP, pa.int64()))
    )


def stamped(changes_: Iterable[Change], base: int) -> Iterator[pa.RecordBatch]:
    """The rows of some changes with their stamps, but for those in which time alone has changed the vectors."""
    for change in changes_:
        if not change.drift and len(change.rows):
            yield with_stamps(change.rows, np.full(len(change.rows), base + change.offset + 1))


def compacted(batches: Iterable[pa.RecordBatch], rows: int = 100_000) -> pa.RecordBatch | None:
    """The last row of each id among many batches, without ever holding many more than that."""
    kept: list[pa.RecordBatch] = []
    for batch in batches:
        kept.append(batch)
        if sum(map(len, kept[1:])) > max(rows, len(kept[0])):
            kept = [latest(kept)]
    return latest(kept)


def slices(rows: pa.RecordBatch | None, size: int) -> Iterator[pa.RecordBatch]:
    """``size`` rows at a time."""
    if rows is not None:
        yield from (rows.slice(start, size) for start in range(0, len(rows), size))


def latest(batches: list[pa.RecordBatch]) -> pa.RecordBatch | None:
    """The last row of each id among some batches, oldest batch first."""
    if not batches:
        return None
    table = pa.Table.from_batches(batches)
    last = {key: position for position, key in enumerate(table["id"].to_pylist())}
    return table.take(pa.array(sorted(last.values()), pa.int64())).combine_chunks().to_batches()[0]


def seeds(bundle: Bundle, side: str, partition: int, homes: RowPartitions, size: int) -> Iterator[pa.RecordBatch]:
    """The bundle's rows whose ids are at home in a partition, those of ``size`` ids of the table at a time."""
    table = bundle.queries if side == "query" else bundle.items
    for start in range(0, len(table.ids), size):
        rows = np.arange(start, min(start + size, len(table.ids)))
        rows = rows[homes(rows, table.ids) == partition]
        rows = rows[of_somebody(table.ids.take(rows))]
        if not len(rows):
            continue
        names = ("a", "update_count", "clicks", "counters", "last_click")
        values, every = {name: getattr(table, name)[rows] for name in names}, np.arange(len(rows))
        if side == "query":
            update = QueryUpdate(rows, recent_items=table.recent_items[rows], **values)
            yield query_stage.changelog(update, table.ids, bundle.items.ids, every)
        else:
            step = item_stage.ItemStep(ItemUpdate(rows, **values), table.vectors[rows], table.as_of[rows], every)
            yield item_stage.changelog(step, table.ids, every)
