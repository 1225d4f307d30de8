"""Whatever a topic holds, whatever stops: the index goes on, and health and status say what is true."""

import threading
import time

import numpy as np
import pyarrow as pa
import pytest

from model.settings.serving import ServingConfig
from serving.background import Background
from serving.service import Service
from streaming.kafka.records import ITEM_STATE, pack
from tests.serving.conftest import PATIENT, Running, item_rows, serve_http, updater
from tests.streaming.loop import updater_config
from tests.tiny import WIDTH, tiny_bundle, tiny_store


def narrow(_: Running) -> pa.RecordBatch:
    return item_rows(["i0"], np.ones((1, 3)))


def ragged(_: Running) -> pa.RecordBatch:
    rows = item_rows(["i0", "i1"], np.ones((2, WIDTH))).to_pydict()
    rows["vector"] = [[1.0] * 8, [1.0] * 5]
    return pa.RecordBatch.from_pydict(rows, schema=ITEM_STATE)


def without_vectors(_: Running) -> pa.RecordBatch:
    return item_rows(["i0"], np.ones((1, WIDTH))).drop_columns(["vector"])


def null_ids(_: Running) -> pa.RecordBatch:
    rows = item_rows(["i0"], np.ones((1, WIDTH))).to_pydict() | {"id": [None]}
    return pa.RecordBatch.from_pydict(rows, schema=ITEM_STATE)


@pytest.mark.parametrize("poison", [narrow, ragged, without_vectors, null_ids])
def test_a_record_of_the_served_bundle_that_cannot_be_applied_is_set_aside_and_the_next_one_counts(
    running: Running, poison
):
    before = running.client.get("/v1/status").json()["stream"]
    running.publish(poison(running))
    vector = np.random.default_rng(before["applied"]).normal(size=(1, WIDTH))
    running.publish(item_rows(["i5"], vector))
    index = running.service.snapshot.corpus.index
    running.wait(lambda: np.allclose(index.vectors([5]), vector, atol=1e-6))
    stream = running.client.get("/v1/status").json()["stream"]
    assert stream["set_aside"] == before["set_aside"] + 1 and stream["set_aside_last"][-1]["reason"]
    assert running.client.get("/healthz").status_code == 200
    assert "dat_records_set_aside_total" in running.client.get("/metrics").text


def test_a_record_of_a_later_release_is_set_aside_with_the_way_out(running: Running, monkeypatch: pytest.MonkeyPatch):
    before = running.client.get("/v1/status").json()["stream"]["set_aside"]
    with monkeypatch.context() as later:
        later.setattr("streaming.kafka.records.FORMAT", 3)
        record = pack(item_rows(["i0"], np.ones((1, WIDTH))), running.bundle.version)
    running.producer.send(running.kafka.topics.item_vectors, record).get(10)
    running.wait(lambda: running.client.get("/v1/status").json()["stream"]["set_aside"] == before + 1)
    reason = running.client.get("/v1/status").json()["stream"]["set_aside_last"][-1]["reason"]
    assert "has format 3, and this release reads 1 to 1: run the release that wrote it" in reason


def test_what_a_later_release_says_of_an_item_is_set_aside_and_what_the_one_before_says_holds(running: Running):
    said = {"i7": b'{"hidden": true}', "i8": b'{"format": 3, "hidden": true}', "i9": b'{"hidden": true, "new": 1}'}
    for id_, value in said.items():
        running.producer.send(running.kafka.topics.items, value, key=id_.encode()).get(10)
    running.wait(lambda: running.service.items.get("i9").hidden and running.service.items.set_aside > 0)
    assert [running.service.items.get(id_).hidden for id_ in said] == [True, False, True]
    reason = running.service.items.set_aside_last[-1]["reason"]
    assert "it has format 3, and this release reads 1 to 1: run the release that wrote it" in reason
    for id_ in said:
        running.producer.send(running.kafka.topics.items, b'{"format": 1}', key=id_.encode()).get(10)
    running.wait(lambda: not running.service.items.get("i9").hidden)


def test_rows_that_are_not_finite_stay_out_and_those_beside_them_count(running: Running):
    vectors = np.ones((3, WIDTH))
    vectors[1, 2] = np.nan
    applied = running.service.consumer.applied
    running.publish(item_rows(["i10", "i11", "i12"], vectors))
    running.wait(lambda: running.service.consumer.applied == applied + 2)
    assert np.isfinite(running.service.snapshot.corpus.index.vectors([10, 11, 12])).all()
    answer = running.client.get("/v1/retrieve?query_id=q1&n=100").json()
    assert np.isfinite([item["score"] for item in answer["items"]]).all()


def test_a_thread_that_fails_unexpectedly_begins_again(running: Running, monkeypatch):
    consumer, failures = running.service.consumer, running.service.consumer.failures
    look, calls = consumer._look, []

    def fails_once(kafka_consumer):
        calls.append(1)
        if len(calls) == 1:
            raise MemoryError("a moment without memory")
        return look(kafka_consumer)

    monkeypatch.setattr(consumer, "_look", fails_once)
    running.wait(lambda: consumer.failures > failures)
    vector = np.random.default_rng(7).normal(size=(1, WIDTH))
    running.publish(item_rows(["i6"], vector))
    running.wait(lambda: np.allclose(running.service.snapshot.corpus.index.vectors([6]), vector, atol=1e-6))
    running.wait(lambda: running.client.get("/v1/status").json()["stream"]["error"] is None)


def test_a_thread_that_is_gone_or_does_nothing_but_fail_is_a_failed_liveness(running: Running, monkeypatch):
    consumer = running.service.consumer
    monkeypatch.setattr(consumer, "_failing_since", time.monotonic() - 61)
    monkeypatch.setattr(consumer, "error", "ValueError: always")
    reply = running.client.get("/healthz")
    assert reply.status_code == 503 and "always" in reply.json()["message"]
    monkeypatch.undo()
    assert running.client.get("/healthz").status_code == 200
    monkeypatch.setattr(consumer, "_thread", threading.Thread())
    assert "has ended" in running.client.get("/healthz").json()["message"]


def test_a_broker_that_stays_away_is_logged_once_and_once_more_when_it_is_away_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    class Reader(Background):
        def expected(self, error: Exception) -> bool:
            return True

        def run(self) -> None:
            if self.failures == 3:
                self.worked()
            if self.failures == 6:
                self._stop.set()
            raise TimeoutError("TimeoutError: the broker is away")

    monkeypatch.setattr("serving.background._PAUSE_S", 0)
    reader = Reader("reader")
    reader.start()
    reader._thread.join(60)
    said = [record.message for record in caplog.records if record.name == "serving.background"]
    assert reader.failures == 7 and said == ["reader: trying again: TimeoutError: the broker is away"] * 2


@pytest.mark.flaky(reruns=2)
def test_staleness_tells_within_two_seconds_that_clicks_do_not_get_through_and_when_they_do_again(kafka, tmp_path):
    bundle, store = tiny_bundle(queries=6, items=60), tiny_store(tmp_path, queries=8, items=60)
    service = Service(bundle, store, kafka, tmp_path, PATIENT)
    with serve_http(service, store, bundle, kafka) as running:
        stream = lambda: running.client.get("/v1/status").json()["stream"]  # noqa: E731
        click = lambda item: running.client.post("/v1/clicks", json={"query_id": "q0", "item_id": item})  # noqa: E731
        with updater(bundle, store, updater_config(kafka)):
            click("i1")
            running.wait(lambda: service.consumer.applied > 0)
            running.wait(lambda: stream()["staleness_ms"] == 0)
            running.wait(lambda: stream()["members"].get("query") == 1)
        assert click("i2").status_code == 202  # nobody folds it
        began = time.monotonic()
        running.wait(lambda: stream()["staleness_ms"] > 500)
        assert time.monotonic() - began < 2.5
        first = stream()
        assert first["waiting_ms"][kafka.topics.clicks] > 0
        running.wait(lambda: stream()["staleness_ms"] > first["staleness_ms"] + 500)
        assert running.client.get("/readyz").status_code == 200, "a stale answer is better than none"
        with updater(bundle, store, updater_config(kafka)):
            running.wait(lambda: stream()["staleness_ms"] == 0)


def test_a_service_that_starts_before_its_broker_answers_and_catches_up_later(local_broker, tmp_path):
    from model.settings.updater import KafkaConnection
    from streaming.kafka.topics import create_topics

    broker = local_broker()
    broker.start()
    kafka = KafkaConnection(bootstrap=broker.bootstrap)
    create_topics(kafka, 2)
    broker.stop()
    bundle, store = tiny_bundle(items=60), tiny_store(tmp_path, queries=8, items=60)
    config = ServingConfig(store_timeout_ms=5_000, swap_patience_s=2)
    import httpx

    from tests.serving.conftest import http

    service = Service(bundle, store, kafka, tmp_path, config)
    with http(service) as url, httpx.Client(base_url=url, timeout=30) as client:
        assert client.get("/v1/retrieve?query_id=q0&n=5").status_code == 200
        assert client.get("/healthz").status_code == 200
        deadline = time.monotonic() + 60
        while client.get("/readyz").status_code != 200:  # once its patience is over
            assert time.monotonic() < deadline
            time.sleep(0.1)
        broker.start()
        assert service.consumer.wait_caught_up(60)
    broker.stop()
