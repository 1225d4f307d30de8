"""``dat status`` shows what the stream and the service do, and names what does not answer."""

import socket

import httpx
from rich.console import Console

from cli.settings import Settings
from cli.status import frame, look, quantile
from serving.config import ServingConfig
from serving.service import Service
from streaming.config import UpdaterConfig
from streaming.topics import QUERY_VECTORS
from tests.serving.conftest import serve_http
from tests.serving.conftest import updater as running_updater
from tests.streaming.loop import eventually, folds, produce, some_clicks, truth
from tests.tiny import tiny_bundle, tiny_store
from training.bundle import Shelf


def shown(before, now) -> str:
    console = Console(width=140)
    with console.capture() as capture:
        console.print(frame(before, now))
    return capture.get()


def test_a_frame_of_the_whole_loop(bootstrap, tmp_path):
    bundle, store = tiny_bundle("status-1"), tiny_store(tmp_path, queries=9, items=12)
    Shelf(tmp_path / "bundles").publish(bundle)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = UpdaterConfig(bootstrap=bootstrap, metrics_port=port)
    settings, clicks = Settings(home=tmp_path, updater=config), some_clicks(50)
    service = Service(bundle, store, config, tmp_path, ServingConfig())
    with running_updater(bundle, store, config), serve_http(service, store, bundle, bootstrap) as serving:
        where = settings, serving.url, f"http://127.0.0.1:{port}"
        before = look(*where)
        produce(bootstrap, clicks)
        folds(bootstrap, QUERY_VECTORS, bundle, truth(clicks)[0], "folded")
        eventually(lambda: not any(look(*where).lag.values()), "nobody is behind")
        now = look(*where)
        httpx.get(f"{serving.url}/v1/retrieve", params={"query_id": "q1"})
        told = httpx.get(f"{serving.url}/metrics").text
    assert 'dat_bundle_served{version="status-1"} 1.0' in told
    assert 'dat_answer_seconds_count{source="stream"} ' in told
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
    ):
        assert part in text


def test_what_is_away_is_named(tmp_path):
    settings = Settings(home=tmp_path, updater=UpdaterConfig(bootstrap="127.0.0.1:1"))
    seen = look(settings, "http://127.0.0.1:1", "http://127.0.0.1:1")
    text = shown(seen, seen)
    assert len(seen.away) == 3 and "none yet: dat nightly" in text
    assert "does not answer: Kafka at 127.0.0.1:1" in text
