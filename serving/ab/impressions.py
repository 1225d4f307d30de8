"""Impressions: what was answered to whom, on the topic ``impressions``; and reading them back beside the clicks."""

from collections.abc import Iterator
from itertools import islice
from typing import Any, TypeVar

import pyarrow as pa
from kafka import TopicPartition
from pydantic import BaseModel, Field, ValidationError

from feature_repo.event_rule import EventRule
from feature_repo.limits import LATEST_MS
from model.click import Click
from model.settings.updater import KafkaConnection
from model.topic_record import TopicRecord
from streaming.kafka.changelog import read_range
from streaming.kafka.clients import close_quietly, free_consumer

_Record = TypeVar("_Record", bound=BaseModel)
IMPRESSION_TABLE = pa.schema(
    [
        ("query_id", pa.string()),
        ("at", pa.int64()),
        ("served", pa.int64()),
        ("items", pa.list_(pa.string())),
        ("bundle", pa.string()),
        ("source", pa.string()),
        ("experiment", pa.string()),
        ("arm", pa.string()),
        ("teams", pa.string()),
        ("shown", pa.bool_()),
        ("answer_id", pa.string()),
    ]
)
CLICK_TABLE = pa.schema(
    [
        ("query_id", pa.string()),
        ("item_id", pa.string()),
        ("event_time", pa.int64()),
        ("arrived", pa.int64()),
        ("answer_id", pa.string()),
    ]
)


class Impression(TopicRecord):
    """What was shown of one answer. A JSON object, keyed by ``query_id``.

    at: the moment that was asked about, in the data's time · served: by the service's clock; both ms since the epoch,
    UTC · experiment, arm: ``control``, ``treatment``, or ``interleaved`` if an experiment ran · teams: of an
    interleaved list, whose each item of the answer is: ``c`` or ``t`` · shown: false if only computed, in shadow ·
    answer_id: see :mod:`serving.ab.answer_ids`.
    """

    query_id: str
    at: int = Field(ge=0, lt=LATEST_MS)
    served: int = Field(ge=0, lt=LATEST_MS)
    items: list[str]
    bundle: str
    source: str
    experiment: str | None = None
    arm: str | None = None
    teams: str | None = None
    shown: bool = True
    answer_id: str | None = None


def read_impressions(connection: KafkaConnection, since_ms: int = 0) -> pa.Table:
    """The impressions that were written since a moment, as ``IMPRESSION_TABLE``; what is not one is skipped."""
    found = _read(connection, connection.topics.impressions, Impression, since_ms)
    return _table((impression.model_dump() for _, impression in found), IMPRESSION_TABLE)


def read_clicks(connection: KafkaConnection, since_ms: int, rule: EventRule) -> pa.Table:
    """The clicks that came to the topic since a moment of the broker's clock, as ``CLICK_TABLE``."""
    rows = (
        {
            **click.model_dump(include={"query_id", "item_id", "event_time"}),
            "arrived": record.timestamp,
            "answer_id": answer_id if isinstance(answer_id := (click.context or {}).get("answer_id"), str) else None,
        }
        for record, click in _read(connection, connection.topics.clicks, Click, since_ms)
        if rule.weight(click.event_type, click.value) > 0
    )
    return _table(rows, CLICK_TABLE)


def _table(rows: Iterator[dict], schema: pa.Schema) -> pa.Table:
    """Rows as a table, some thousands at a time: as Python objects they would take many times the memory."""
    parts = [schema.empty_table()]
    while some := list(islice(rows, 10_000)):
        parts.append(pa.Table.from_pylist(some, schema))
    return pa.concat_tables(parts)


def _read(connection: KafkaConnection, topic: str, kind: type[_Record], since_ms: int) -> Iterator[tuple[Any, _Record]]:
    """Each record of a topic from a moment on that is of a kind, and what it says."""
    consumer = free_consumer(connection)
    try:
        numbers = sorted(consumer.partitions_for_topic(topic) or ())  # none: nobody has written yet
        partitions = [TopicPartition(topic, number) for number in numbers]
        ends = consumer.end_offsets(partitions)
        starts = consumer.offsets_for_times(dict.fromkeys(partitions, since_ms))
    finally:
        close_quietly(consumer)
    for partition in partitions:
        start = starts.get(partition)
        for records in read_range(connection, partition, start.offset if start else ends[partition], ends[partition]):
            for record in records:
                try:
                    yield record, kind.model_validate_json(record.value or b"")
                except ValidationError:
                    continue
