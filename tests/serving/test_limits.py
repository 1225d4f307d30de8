"""Who may ask, how much at once, and what is left when the broker is gone."""

import time
from contextlib import contextmanager

import pytest

from cli.broker import LocalBroker
from serving.client import Client, RequestRefused
from serving.config import ServingConfig
from serving.retrieval import Ask
from serving.service import Service
from streaming.clients import create_topics
from streaming.config import KafkaConnection
from tests.conftest import PARTITIONS
from tests.serving.conftest import serve_http
from tests.tiny import tiny_bundle, tiny_store

KEY = "a-long-enough-key"


@contextmanager
def serving(bootstrap: str, home, **settings):
    create_topics(bootstrap, PARTITIONS)
    bundle, store = tiny_bundle(f"limits-{home.name}", items=60), tiny_store(home, queries=8, items=60)
    service = Service(bundle, store, KafkaConnection(bootstrap=bootstrap), home, ServingConfig(**settings))
    with serve_http(service, store, bundle, bootstrap) as running:
        yield running


def wait_until_idle(service: Service) -> None:
    """Until nothing waits at the desk: what was refused as a whole may have been under way in part."""
    deadline = time.monotonic() + 30
    while service.desk.pending and time.monotonic() < deadline:
        time.sleep(0.01)
    assert service.desk.pending == 0


def test_the_key_is_asked_for_and_a_full_service_says_so(broker, tmp_path):
    with serving(broker.bootstrap, tmp_path, api_key=KEY, max_pending=3) as running:
        for key in (None, "wrong", KEY + "x"):
            reply = running.client.get("/v1/retrieve?query_id=q0", headers={"X-API-Key": key} if key else {})
            assert (reply.status_code, reply.json()["code"]) == (401, "no-key")
        assert running.client.get("/").status_code == running.client.get("/healthz").status_code == 200
        with Client(running.url, api_key=KEY) as dat, pytest.raises(RequestRefused, match="waiting") as refused:
            assert len(dat.retrieve("q0", n=5).items) == 5
            dat.retrieve_many(["q0", "q1", "q2", "q3"])
        assert (refused.value.status, refused.value.code, refused.value.retry_after_s) == (503, "busy", 1)
        wait_until_idle(running.service)
        headers = {"X-API-Key": KEY}
        held = [running.service.desk.submit(Ask("q0", wait_for_clicks=10**6, timeout_s=600)) for _ in range(3)]
        reply = running.client.get("/v1/retrieve?query_id=q0", headers=headers)
        assert reply.status_code == 503 and reply.headers["Retry-After"] == "1"
        for future in held:
            future.cancel()
        wait_until_idle(running.service)
        assert running.client.get("/v1/retrieve?query_id=q0", headers=headers).status_code == 200


def test_without_a_broker_answers_go_on_and_clicks_are_refused(tmp_path):
    with LocalBroker(tmp_path / "kafka") as broker:
        running = serving(broker.bootstrap, tmp_path, produce_timeout_s=2)
        service = running.__enter__()
        before = service.client.get("/v1/retrieve?query_id=q0&n=10").json()["items"]
    try:
        reply = service.client.post("/v1/clicks", json={"query_id": "q0", "item_id": "i1"})
        assert (reply.status_code, reply.json()["code"]) == (503, "not-written") and reply.headers["Retry-After"]
        for _ in range(20):
            reply = service.client.get("/v1/retrieve?query_id=q0&n=10")
            assert reply.status_code == 200 and reply.json()["items"] == before
    finally:
        running.__exit__(None, None, None)
