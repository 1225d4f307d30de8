"""What the records of the topics hold: one definition for who writes and who reads. Names: :mod:`model.topics`.

``clicks``        JSON :class:`model.click.Click`, or :class:`model.click.Forget`, keyed by query
``forgotten``     JSON :class:`model.forgetting.Forgotten`, keyed by query; compacted
``impressions``   JSON :class:`serving.ab.impressions.Impression`, keyed by query: what the service answered
``clicks-dead``   the bytes of a click that could not be read; why and from where stand in the headers
``items``         JSON :class:`serving.item_records.ItemRecord`, keyed by item; compacted
``dismissed``     JSON :class:`streaming.dismissals.Dismissal`, keyed by query
``item-signals``  Arrow batch of ``SIGNALS``: what the query stage tells the item stage, partitioned by item
``query-vectors`` Arrow batch of ``QUERY_STATE``: the queries that a transaction changed; the query stage's changelog
``item-vectors``  Arrow batch of ``ITEM_STATE``: the items that a transaction changed; the item stage's changelog

JSON that only this system writes carries its format (:mod:`model.topic_record`). A record of the last three packs many
rows, since a record per row costs more to send than to compute. All values are absolute, so that applying a record
twice is harmless, and every batch names the bundle whose space its vectors are in. Partition p of a changelog belongs
to partition p of the stage's input.
"""

from typing import Any, NamedTuple

import pyarrow as pa

FORMAT = 1
"""Of the records that are written. A release reads its own and the one before; 0.1 wrote none, which is 1."""
_VECTOR = pa.list_(pa.float32())
SIGNALS = pa.schema([("item_id", pa.string()), ("vector", _VECTOR), ("event_time", pa.int64())])
WEIGHT = "weight"
"""A further column of signals of which some do not weigh 1."""
_STATE = [
    ("id", pa.string()),
    ("a", _VECTOR),  # M · d: memories side by side
    ("folded", pa.int64()),  # clicks folded into a
    ("clicks", pa.int64()),  # clicks ever
    ("counters", _VECTOR),  # decayed counters as of last_click
    ("last_click", pa.int64()),  # ms since the epoch, UTC
]
QUERY_STATE = pa.schema([*_STATE, ("history", pa.list_(pa.string()))])  # newest last
ITEM_STATE = pa.schema([*_STATE, ("vector", _VECTOR)])  # p_v, the item tower's output

_BUNDLE, _FORMAT = b"bundle", b"format"


class UnknownFormat(RuntimeError):
    """A record is of a format that this release does not read. The message says where it is and what to do."""


class Packed(NamedTuple):
    """Rows that came out of a record, the bundle in whose space their vectors lie, and the record's format."""

    bundle: str
    rows: pa.RecordBatch
    format: int

    def known(self, record: Any) -> "Packed":
        """This, if this release knows what its columns mean.

        Args:
            record: Where it came from.

        Raises:
            UnknownFormat: it does not.
        """
        if not FORMAT - 1 <= self.format <= FORMAT:
            where = f"{record.topic}-{record.partition} at {record.offset}"
            raise UnknownFormat(
                f"{where} has format {self.format}, and this release reads {max(1, FORMAT - 1)} to {FORMAT}: run the "
                "release that wrote it, or put a bundle into service that only this one has worked for (dat nightly)"
            )
        return self


def pack(rows: pa.RecordBatch, bundle: str) -> bytes:
    """Arrow IPC bytes of some rows, which name their bundle and their format."""
    rows = rows.replace_schema_metadata({_BUNDLE: bundle.encode(), _FORMAT: str(FORMAT).encode()})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_batch(rows)
    return sink.getvalue().to_pybytes()


def unpack(value: bytes) -> Packed:
    """The opposite of :func:`pack`.

    Raises:
        pyarrow.ArrowInvalid: these bytes are not such a record.
    """
    with pa.ipc.open_stream(value) as reader:
        rows = reader.read_next_batch()
    said = rows.schema.metadata or {}
    number = said.get(_FORMAT, b"1")
    if not number.isdigit():
        raise pa.ArrowInvalid(f"a record's format is a number, not {number!r}")
    return Packed(said.get(_BUNDLE, b"").decode(), rows, int(number))
