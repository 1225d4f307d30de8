"""Events as JSON, and what is wrong with Kafka in words."""

import json
import logging
import sys

import pytest

from cli.logs import JsonLines, kafka_cause, listen_to_kafka
from model.settings.updater import KafkaConnection
from streaming.kafka.topics import create_topics


def test_an_event_is_one_json_object_with_what_the_call_added_and_its_error():
    try:
        raise ValueError("no\nsuch thing")
    except ValueError:
        record = logging.LogRecord("serving.x", logging.ERROR, "x.py", 1, "a %s", ("b",), sys.exc_info())
    record.request_id = "r1"
    line = JsonLines().format(record)
    assert "\n" not in line
    event = json.loads(line)
    assert (event["level"], event["logger"], event["message"], event["request_id"]) == (
        "ERROR",
        "serving.x",
        "a b",
        "r1",
    )
    assert "no\nsuch thing" in event["error"] and event["time"].endswith("Z")


@pytest.mark.parametrize(
    ("bootstrap", "cause"),
    [("127.0.0.1:1", "nothing listens there"), ("no-such-name.invalid:9092", "the name is not known")],
)
def test_a_closed_port_and_a_wrong_name_are_told_apart(bootstrap: str, cause: str):
    listen_to_kafka()
    with pytest.raises(Exception) as caught:  # noqa: B017, PT011 — whatever kafka-python raises
        create_topics(KafkaConnection(bootstrap=bootstrap, connect_timeout_ms=500))
    assert kafka_cause(caught.value) == cause
