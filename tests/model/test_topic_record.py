"""JSON records of the topics carry a format, and are read by the release that wrote them and the next."""

import json

import pytest
from pydantic import ValidationError

from model.forgetting import Forgotten
from model.topic_record import UNKNOWN, TopicRecord
from serving.ab.impressions import Impression
from serving.item_records import ItemRecord
from streaming.dismissals import Dismissal

RECORDS = [
    Forgotten(before=1, partition=2, offset=3),
    Dismissal(item_id="i", event_time=1, partition=2, offset=3),
    ItemRecord(features={"format": "film"}, hidden=True),
    Impression(query_id="q", at=1, served=2, items=["a", "é"], bundle="b", source="stream"),
]


def with_format(record: TopicRecord, number: object) -> bytes:
    return json.dumps(record.model_dump() | {"format": number, "of a later release": [1]}).encode()


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_each_is_written_with_its_format_and_read_of_this_release_and_the_one_before(record, monkeypatch):
    kind = type(record)
    monkeypatch.setattr("model.topic_record.FORMAT", 3)
    assert json.loads(record.as_json())["format"] == 3
    for number in (2, 3):
        assert kind.model_validate_json(with_format(record, number)) == record
    for number in (None, "3", 1, 4):
        with pytest.raises(ValidationError, match="and this release reads 2 to 3: run the release") as refused:
            kind.model_validate_json(with_format(record, number))
        assert [error["type"] for error in refused.value.errors()] == [UNKNOWN]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_one_without_a_format_is_of_the_first_release(record, monkeypatch):
    kind, plain = type(record), record.model_dump_json().encode()
    assert kind.model_validate_json(plain) == kind.model_validate_json(record.as_json()) == record
    assert kind.model_validate_json(record.as_json(exclude_defaults=True)) == record
    monkeypatch.setattr("model.topic_record.FORMAT", 3)
    with pytest.raises(ValidationError, match="it has format 1"):
        kind.model_validate_json(plain)
