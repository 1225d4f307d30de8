"""``dat status`` shows what the stream and the service do, and names what does not answer."""

import httpx
from kafka import KafkaProducer, TopicPartition
from rich.console import Console

from cli.status import frame, look, quantile
from devstack.ports import free_port
from model.bundle_store import BundleStore
from model.settings.serving import ServingConfig
from model.settings.settings import Settings
from model.settings.updater import UpdaterConfig
from serving.service import Service
from streaming.kafka.offsets import ends, unread
from tests.serving.conftest import serve_http
from tests.serving.conftest import updater as running_updater
from tests.streaming.loop import eventually, folds, produce, some_clicks, truth, updater_config
from tests.tiny import tiny_bundle, tiny_store


def shown(before, now) -> str:
    console = Console(width=140)
    with console.capture() as capture:
        console.print(frame(before, now))
    return capture.get()


def test_marks_of_producers_transactions_are_nothing_to_wait_for(kafka):
    """A producer that aborted showed as a lag for ever."""
    place = TopicPartition(kafka.topics.clicks, 0)
    producer = KafkaProducer(**kafka.client, transactional_id=f"{kafka.prefix}shop")
    producer.init_transactions()
    for end in (producer.abort_transaction, producer.commit_transaction):
        producer.begin_transaction()
        producer.send(place.topic, b"{}", partition=0)
        producer.flush()
        end()
    producer.close()
    end_at = ends(kafka, [place.topic])
    assert end_at[place] == 4 and unread(kafka, {place: 3}, end_at)[place] == 0
    assert unread(kafka, {}, end_at)[place] == 4


def test_a_frame_of_the_whole_loop(kafka, tmp_path):
    bundle, store = tiny_bundle("status-1"), tiny_store(tmp_path, queries=9, items=12)
    BundleStore(tmp_path / "bundles").publish(bundle)
    port = free_port()
    config = updater_config(kafka, metrics_port=port)
    settings, clicks = Settings(home=tmp_path, updater=config), some_clicks(50)
    service = Service(bundle, store, config, tmp_path, ServingConfig())
    with running_updater(bundle, store, config), serve_http(service, store, bundle, kafka) as serving:
        where = settings, serving.url, f"http://127.0.0.1:{port}"
        before = look(*where)
        produce(kafka, clicks)
        folds(kafka, "query", bundle, truth(clicks)[0], "folded")
        eventually(lambda: not any(look(*where).lag.values()), "nobody is behind")
        now = look(*where)
        httpx.get(f"{serving.url}/v1/retrieve", params={"query_id": "q1"})
        told = httpx.get(f"{serving.url}/metrics").text
    assert 'dat_bundle_served{version="status-1"} 1.0' in told
    assert 'dat_answers_total{fallback="none",source="stream"}' in told
    assert "dat_searchable_seconds_count" in told
    assert not now.away
    assert now.written["clicks"] - before.written["clicks"] == 50
    assert now.done["query stage"] == now.written["clicks"]
    assert quantile(now.updater, before.updater, "dat_freshness_seconds", "query", 0.5) is not None
    text = shown(before, now)
    for part in (
        "status-1",
        "query stage",
        "item stage",
        "online store",
        "50 so far",
        "dead letters",
        "serves",
        "index",
        "freshness",
    ):
        assert part in text


def test_what_is_away_is_named(tmp_path):
    settings = Settings(home=tmp_path, updater=UpdaterConfig(bootstrap="127.0.0.1:1", connect_timeout_ms=300))
    seen = look(settings, "http://127.0.0.1:1", "http://127.0.0.1:1")
    text = shown(seen, seen)
    assert len(seen.away) == 3 and "none yet: dat nightly" in text
    assert "does not answer: Kafka at 127.0.0.1:1" in text
