"""Who may ask, how much at once, and what is left when the broker or the store is gone."""

import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx
import pytest
from prometheus_client import generate_latest

from feature_repo.store import open_store, register
from model.click import Click
from model.settings.serving import ApiKey, ServingConfig
from model.settings.updater import KafkaConnection
from serving.http.server import Server
from serving.metrics import REGISTRY
from serving.rates import Rates
from serving.service import Service
from streaming.clicks import ClickWriter
from streaming.kafka.topics import create_topics
from tests.serving.conftest import Running, serve_http
from tests.tiny import CUT_MS, TINY, tiny_bundle, tiny_store

CLICK = {"query_id": "q0", "item_id": "i1"}


@contextmanager
def serving(kafka: KafkaConnection, home, hosts: tuple[str, ...] = (), **settings):
    bundle, store = tiny_bundle(items=60), tiny_store(home, queries=8, items=60)
    config = ServingConfig(**{"store_timeout_ms": 5_000, **settings})
    with serve_http(Service(bundle, store, kafka, home, config), store, bundle, kafka, hosts) as running:
        yield running


def test_a_key_may_do_what_its_scopes_say_and_no_more(kafka, tmp_path):
    keys = [
        ApiKey(name="page", key="a-key-for-the-page", scopes={"read", "click"}),
        ApiKey(name="support", key="a-key-for-support", scopes={"read", "history"}),
    ]
    asks = {
        "read": ("GET", "/v1/retrieve?query_id=q0"),
        "click": ("POST", "/v1/clicks"),
        "history": ("GET", "/v1/queries/q0/clicks"),
        "operate": ("GET", "/metrics"),
    }
    with serving(kafka, tmp_path, keys=keys, api_key="may-do-everything") as running:

        def status(scope: str, **headers: str) -> int:
            method, path = asks[scope]
            return running.client.request(
                method, path, headers=headers, json=CLICK if method == "POST" else None
            ).status_code

        for scope in asks:
            reply = running.client.request(*asks[scope])
            assert (reply.status_code, reply.json()["code"]) == (401, "no-key")
            assert status(scope, **{"X-API-Key": "a-wrong-key"}) == 401
            assert status(scope, Authorization="Bearer may-do-everything") in (200, 202)
            for key in keys:
                allowed = scope in key.scopes
                assert (status(scope, **{"X-API-Key": key.key.get_secret_value()}) < 300) == allowed, (scope, key.name)
        refused = running.client.get("/v1/queries", headers={"X-API-Key": "a-key-for-the-page"})
        assert (refused.status_code, refused.json()["code"]) == (403, "scope") and "history" in refused.json()[
            "message"
        ]
        for path in ("/", "/healthz", "/readyz", "/docs", "/openapi.json", "/page/app.js"):
            assert running.client.get(path).status_code == 200
        document = running.client.get("/openapi.json").json()
        assert document["components"]["securitySchemes"]["APIKeyHeader"]["name"] == "X-API-Key"


def test_a_caller_has_so_many_requests_a_second_and_another_one_is_not_touched(kafka, tmp_path):
    keys = [ApiKey(name="slow", key="the-slow-key", per_second=3), ApiKey(name="free", key="the-free-key")]
    with serving(kafka, tmp_path, keys=keys) as running:
        ask = lambda key: running.client.get("/v1/retrieve?query_id=q0", headers={"X-API-Key": key})  # noqa: E731
        slow = [ask("the-slow-key") for _ in range(12)]
        refused = [reply for reply in slow if reply.status_code == 429]
        assert len(refused) >= 5 and refused[0].headers["Retry-After"] and refused[0].json()["code"] == "too-many"
        assert all(ask("the-free-key").status_code == 200 for _ in range(12))
        time.sleep(1)
        assert ask("the-slow-key").status_code == 200


def test_keys_cannot_be_guessed_and_whoever_has_one_is_not_touched(kafka, tmp_path):
    keys = [ApiKey(name="page", key="a-key-for-the-page"), ApiKey(name="other", key="a-key-for-others")]
    limits = {"keys": keys, "wrong_keys_per_minute": 5, "trusted_proxies": ["127.0.0.1"]}
    with serving(kafka, tmp_path, **limits) as running:

        def ask(key: str, address: str):
            headers = {"X-API-Key": key, "X-Forwarded-For": f"9.9.9.9, {address}"}
            return running.client.get("/v1/categories", headers=headers)

        assert ask("a-key-for-the-page", "10.0.0.1").status_code == 200
        guesses = [ask(f"a-guess-{k}", "10.0.0.1") for k in range(9)]
        assert [reply.status_code for reply in guesses] == [401] * 5 + [429] * 4
        assert guesses[-1].json()["code"] == "too-many-keys" and 1 <= int(guesses[-1].headers["Retry-After"]) <= 12
        assert ask("a-key-for-others", "10.0.0.1").status_code == 429, "a right guess would be told from a wrong one"
        assert ask("a-key-for-the-page", "10.0.0.1").status_code == 200, "who shares the address was there before"
        assert ask("a-key-for-others", "10.0.0.2").status_code == 200
        block = [ask("a-guess", f"2001:db8::{k:x}:0:0:7").status_code for k in range(8)]
        assert block == [401] * 5 + [429] * 3, "of IPv6 one network is one caller"
        assert ask("a-guess", "2001:db8:0:1::7").status_code == ask("a-guess", "::ffff:10.0.0.3").status_code == 401
        text = generate_latest(REGISTRY).decode()
        assert all(f'dat_wrong_keys_total{{result="{result}"}}' in text for result in ("refused", "unread"))


def test_what_a_caller_says_of_its_address_counts_only_where_the_settings_name_its_proxy(kafka, tmp_path):
    with serving(kafka, tmp_path, api_key="may-do-everything", wrong_keys_per_minute=2) as running:
        headers = [{"X-API-Key": "a-guess", "X-Forwarded-For": f"10.0.0.{k}"} for k in range(4)]
        statuses = [running.client.get("/v1/status", headers=one).status_code for one in headers]
        assert statuses == [401, 401, 429, 429]
    for wrong in ("proxy.example", "10.0.0.5/8"):
        with pytest.raises(ValueError, match="trusted_proxies"):
            ServingConfig(trusted_proxies=[wrong])


def test_how_often_somebody_does_something_is_kept_of_so_many_only():
    rates = Rates(remembered=100)
    assert [rates.take("somebody", 2, 0.001) > 0 for _ in range(3)] == [False, False, True]
    for k in range(99):
        rates.take(f"other-{k}", 2, 0.001)
    assert rates.wait_s("somebody", 2, 0.001) > 0 and len(rates) == 100
    for k in range(10_000):
        rates.take(f"more-{k}", 2, 0.001)
    assert len(rates) == 100


def test_forged_tokens_hold_nothing_and_real_ones_of_any_process_wait(kafka, tmp_path):
    """No updater runs: what waits is held."""
    with serving(kafka, tmp_path, max_held=3, store_timeout_ms=5_000) as running:
        ask = lambda token, **more: running.client.get(  # noqa: E731
            "/v1/retrieve", params={"query_id": "q0", "n": 3, "wait_for": token, "timeout_ms": 30_000, **more}
        )
        for token in ("0:0", "1:99999999", "9:0", "0:0:0:0", "99999:999999999999999999"):
            for _ in range(2):
                refused = ask(token)
                assert (refused.status_code, refused.json()["code"]) == (422, "not-valid"), refused.text
                assert token in refused.json()["message"]
        for text in ("0", "0:1:2", "a:b", "0:-1", "0:1:2:3:4"):
            assert ask(text).status_code == 422
        elsewhere = ClickWriter(kafka).write(Click(event_id="e", query_id="q0", item_id="i1", event_time=CUT_MS + 1))
        there = f"{elsewhere.partition}:{elsewhere.offset}"
        assert ask(there, timeout_ms=50).json()["reached"] is False
        assert ask(f"{elsewhere.partition}:{elsewhere.offset + 1}").status_code == 422
        assert running.client.get("/v1/status").json()["load"]["held"] == 0


def test_one_query_cannot_click_without_end(kafka, tmp_path):
    with serving(kafka, tmp_path, clicks_per_minute=5) as running:
        replies = [running.client.post("/v1/clicks", json=CLICK) for _ in range(8)]
        assert [reply.status_code for reply in replies] == [202] * 5 + [429] * 3
        assert replies[-1].json()["code"] == "too-many-clicks" and int(replies[-1].headers["Retry-After"]) <= 60
        assert running.client.post("/v1/clicks", json=CLICK | {"query_id": "q1"}).status_code == 202


def test_other_names_of_the_machine_and_pages_of_other_origins_are_turned_away(kafka, tmp_path):
    with serving(kafka, tmp_path, hosts=("127.0.0.1",), cors_origins=["https://shop.example"]) as running:
        post = lambda **headers: running.client.post("/v1/clicks", json=CLICK, headers=headers)  # noqa: E731
        wrong = running.client.get("/v1/retrieve?query_id=q0", headers={"Host": "evil.example"})
        assert (wrong.status_code, wrong.json()["code"]) == (421, "wrong-host")
        assert running.client.get("/healthz", headers={"Host": "10.1.2.3:8000"}).status_code == 200
        assert post(Origin="http://evil.example").json()["code"] == "wrong-origin"
        assert post(Origin=running.url).status_code == 202
        allowed = post(Origin="https://shop.example")
        assert allowed.status_code == 202
        assert allowed.headers["Access-Control-Allow-Origin"] == "https://shop.example"
        asked = {"Origin": "https://shop.example", "Access-Control-Request-Method": "POST"}
        assert running.client.options("/v1/clicks", headers=asked).status_code == 204
        elsewhere = asked | {"Origin": "http://evil.example"}
        assert "Access-Control-Allow-Origin" not in running.client.options("/v1/clicks", headers=elsewhere).headers


def test_every_answer_carries_what_keeps_browsers_from_misusing_it(running: Running):
    for path in ("/", "/v1/retrieve?query_id=q0", "/v1/nothing", "/page/app.js"):
        headers = running.client.get(path).headers
        assert headers["X-Content-Type-Options"] == "nosniff" and headers["Referrer-Policy"] == "no-referrer"
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
        assert "server" not in headers
    assert running.client.get("/v1/retrieve?query_id=q0").headers["Cache-Control"] == "no-store"
    for path in ("/", "/docs"):
        assert "http://" not in running.client.get(path).text.replace("http://www.w3.org", "")


def test_metrics_tell_what_was_answered_and_with_which_code(running: Running):
    running.client.get("/v1/retrieve?query_id=nobody-at-all")
    running.client.get("/v1/retrieve")
    text = running.client.get("/metrics").text
    assert 'dat_http_requests_total{code="200",method="GET",route="/v1/retrieve"}' in text
    assert 'dat_http_requests_total{code="422",method="GET",route="/v1/retrieve"}' in text
    assert 'dat_answers_total{fallback="unknown-query",source="popularity"}' in text
    for name in ("dat_staleness_seconds", "dat_store_read_seconds_count", "process_resident_memory_bytes"):
        assert f"\n{name} " in text
    assert "feast" not in text


@pytest.mark.flaky(reruns=2)
def test_without_a_broker_answers_go_on_and_clicks_are_refused(local_broker, tmp_path):
    with local_broker() as broker:
        kafka = KafkaConnection(bootstrap=broker.bootstrap)
        create_topics(kafka, 2)
        entered = serving(kafka, tmp_path, produce_timeout_s=2)
        service = entered.__enter__()
        before = service.client.get("/v1/retrieve?query_id=q0&n=10").json()["items"]
    try:
        began = time.monotonic()
        stale = lambda: service.client.get("/v1/status").json()["stream"]["staleness_ms"]  # noqa: E731
        service.wait(lambda: stale() > 1_000)
        assert time.monotonic() - began < 5
        reply = service.client.post("/v1/clicks", json=CLICK)
        assert (reply.status_code, reply.json()["code"]) == (503, "not-written") and reply.headers["Retry-After"]
        for _ in range(20):
            reply = service.client.get("/v1/retrieve?query_id=q0&n=10")
            assert reply.status_code == 200 and reply.json()["items"] == before
        asked = {"query_id": "q0", "n": 10, "wait_for": "0:5", "timeout_ms": 30_000}
        assert service.client.get("/v1/retrieve", params=asked).json()["reached"] is False, (
            "nobody can say if it is one"
        )
        assert service.service.batcher.held == 0
        assert service.client.get("/readyz").status_code == service.client.get("/healthz").status_code == 200
    finally:
        entered.__exit__(None, None, None)


@pytest.mark.flaky(reruns=2)
def test_told_to_end_it_says_so_answers_for_a_while_lets_held_answers_go_and_closes(kafka, tmp_path):
    bundle, store = tiny_bundle(items=60), tiny_store(tmp_path, queries=8, items=60)
    service = Service(bundle, store, kafka, tmp_path, ServingConfig(store_timeout_ms=5_000, drain_s=1))
    server = Server(service, host="127.0.0.1", port=0)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    with httpx.Client(base_url=url, timeout=30) as client, ThreadPoolExecutor(1) as other:
        token = client.post("/v1/clicks", json=CLICK).json()["token"]  # no updater counts it
        held = other.submit(httpx.get, f"{url}/v1/retrieve?query_id=q0&wait_for={token}&timeout_ms=20000", timeout=30)
        while not service.batcher.held:
            time.sleep(0.01)
        began = time.monotonic()
        loop = service.catalogue._task.get_loop()
        loop.call_soon_threadsafe(server.handle_exit, signal.SIGTERM, None)  # as a signal does in the main thread
        while client.get("/readyz").json().get("code") != "not-ready":
            assert time.monotonic() - began < 1
        assert "stopping" in client.get("/readyz").json()["message"]
        assert client.get("/v1/retrieve?query_id=q0&n=5").status_code == 200
        answer = held.result(20)
        assert answer.status_code == 200 and answer.json()["reached"] is False
    thread.join(20)
    assert not thread.is_alive()
    with pytest.raises(httpx.TransportError):
        httpx.get(f"{url}/healthz")


@pytest.mark.flaky(reruns=2)
def test_a_store_that_hangs_costs_an_answer_a_fifth_of_a_second_and_clicks_nothing(kafka, local_redis, tmp_path):
    bundle = tiny_bundle(items=60)
    with local_redis() as redis:
        store = open_store(tmp_path, redis.address)
        register(store, TINY, tmp_path)
        service = Service(bundle, store, kafka, tmp_path, ServingConfig())
        with serve_http(service, store, bundle, kafka) as running:
            ask = lambda: running.client.get("/v1/retrieve?query_id=q0&n=10").json()  # noqa: E731
            running.wait(lambda: ask()["fallback"] is None)
            os.kill(redis.process.pid, signal.SIGSTOP)
            try:
                took = []
                for _ in range(30):
                    began = time.perf_counter()
                    answer = ask()
                    took.append(time.perf_counter() - began)
                    assert len(answer["items"]) == 10
                assert answer["fallback"] == "store-down"
                assert sorted(took)[-2] < 0.1 and max(took) < 0.6, took
                assert running.client.post("/v1/clicks", json=CLICK).status_code == 202
                assert running.client.get("/readyz").status_code == 200
            finally:
                os.kill(redis.process.pid, signal.SIGCONT)
            running.wait(lambda: ask()["fallback"] is None)


@pytest.mark.parametrize("limit", [None, 5.0])
def test_staleness_makes_it_unready_only_where_a_setting_says_so(kafka, tmp_path, limit):
    with serving(kafka, tmp_path, ready_staleness_s=limit) as running:
        running.service.freshness.waiting_ms = {"clicks": 6_000}
        running.service.freshness.close()
        running.service.freshness.waiting_ms = {"clicks": 6_000}
        assert running.client.get("/readyz").status_code == (200 if limit is None else 503)


def test_a_request_has_an_id_which_is_the_callers_if_it_can_stand_in_a_log(kafka, tmp_path):
    with serving(kafka, tmp_path) as running:
        ask = "/v1/retrieve?query_id=q0"
        given = running.client.get(ask, headers={"X-Request-ID": "shop-1:77"}).headers["X-Request-ID"]
        assert given == "shop-1:77"
        bad = [running.client.get(ask, headers={"X-Request-ID": text}).headers["X-Request-ID"] for text in ("a b", "")]
        assert len({*bad}) == 2 and all(text.isalnum() for text in bad)
