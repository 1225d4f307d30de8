"""What the night says of the answers that were served on its test day, from the topics to the report."""

import json
import time
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from kafka import KafkaProducer

from cli.nightly import served_report
from model.settings.settings import Settings
from model.settings.updater import KafkaConnection
from tests.streaming.loop import updater_config

DAY = date(2017, 10, 7)
MOMENT = round(datetime(2017, 10, 7, 12, tzinfo=UTC).timestamp() * 1000)


def _send(kafka: KafkaConnection, topic: str, messages: list[dict]) -> None:
    producer = KafkaProducer(**kafka.client)
    for message in messages:
        producer.send(topic, json.dumps(message).encode(), key=message["query_id"].encode())
    producer.close()


def test_the_hit_rates_of_a_day_are_those_of_its_clicks_after_an_answer(kafka: KafkaConnection, tmp_path: Path):
    settings = Settings(home=tmp_path, dataset="globo-news", updater=updater_config(kafka))
    assert served_report(settings, DAY) is None
    answered = {"at": MOMENT, "served": round(time.time() * 1000) - 10_000, "bundle": "b", "source": "query"}
    _send(
        kafka,
        kafka.topics.impressions,
        [answered | {"query_id": query, "items": [f"i{k}" for k in range(80)]} for query in ("u1", "u2", "u3")],
    )
    clicked = [("u1", "i1", 0), ("u2", "i59", 0), ("u3", "elsewhere", 0), ("u1", "i0", 86_400_000), ("u9", "i0", 0)]
    _send(
        kafka,
        kafka.topics.clicks,
        [
            {"event_id": f"e{n}", "query_id": query, "item_id": item, "event_time": MOMENT + later}
            for n, (query, item, later) in enumerate(clicked)
        ],
    )
    # Ranks 2 and 60, and one that the answer did not have; the next day's click and the one without an answer are out.
    expected = {"clicks": 3, "hr50": 0.3333, "hr100": 0.6667, "mrr10": round(10 * (1 / 2 + 1 / 60) / 3, 4)}
    assert served_report(settings, DAY) == pytest.approx(expected, abs=1e-4)
    kept = json.loads((tmp_path / "served" / "2017-10-07.json").read_text())
    assert kept == pytest.approx(expected, abs=1e-4)
