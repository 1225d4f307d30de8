"""Why a record is not a click: the reason says what is wrong with it."""

import json

import pytest

from model.click import ClickValidator, Record

CLICK = {"event_id": "e", "query_id": "q", "item_id": "i", "event_time": 1_768_175_977_096}
MILLISECONDS = "event_time: must be whole milliseconds since 1970"


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "no value"), (b"", "no value"), (b"{", "not JSON"), (b"[]", "an object"),
        ({**CLICK, "event_time": 1_768_175_977}, MILLISECONDS),
        ({**CLICK, "event_time": 1_768_175_977_096_000}, MILLISECONDS),
        ({**CLICK, "event_time": "2026-01-11T23:59:37+02:00"}, MILLISECONDS),
        ({**CLICK, "event_time": 1_768_175_977_096.0}, MILLISECONDS),
        ({**CLICK, "event_time": None}, MILLISECONDS),
        ({"query_id": "q", "forget_before": "now"}, "forget_before: must be whole milliseconds"),
        ({"query_id": "q", "forget_before": CLICK["event_time"], "why": "asked"}, "why: "),
        ({name: CLICK[name] for name in ("event_id", "query_id", "item_id")}, "event_time: Field required"),
    ],
    ids=str,
)  # fmt: skip
def test_the_reason_names_the_field_and_what_it_must_be(value: object, reason: str):
    raw = value if value is None or isinstance(value, bytes) else json.dumps(value).encode()
    (verdict,) = ClickValidator(1, 60_000)([Record(b"q", raw, 0, CLICK["event_time"])])
    assert reason in verdict.reason
