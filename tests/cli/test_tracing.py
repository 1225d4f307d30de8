"""Traces: of a click through the processes of a service and an updater, and of nothing while they are off."""

import re
import socket
import subprocess
import sys
import threading
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from kafka import TopicPartition
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from devstack.processes import Verb
from model import tracing
from model.bundle_store import BundleStore
from streaming.kafka.clients import free_consumer
from tests.cli.conftest import Run
from tests.otlp import Received, attributes, receiver
from tests.streaming.loop import eventually
from tests.tiny import tiny_bundle, tiny_store

NIGHT = {"torch", "pyspark", "duckdb"}
TRACES = {"opentelemetry.sdk.trace", "opentelemetry.exporter.otlp.proto.http"}
TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def imported(log: Path) -> set[str]:
    """The modules that a process with PYTHONPROFILEIMPORTTIME has loaded."""
    return set(re.findall(r"^import time: +\d+ \| +\d+ \| +(\S+)$", log.read_text(errors="replace"), re.M))


def written(received: Received, side: str) -> list[Span]:
    """The writes of changes; those of the bundle's own rows come from no fold."""
    return [span for span in received.named("dat-updater", f"write {side}") if span.links]


def test_a_click_is_followed_from_its_request_to_the_online_store_and_the_day_has_loaded_nothing_of_the_night(
    kafka, tmp_path: Path
):
    home = tmp_path / "home"
    tiny_store(home)
    bundle = tiny_bundle()
    BundleStore(home / "bundles").publish(bundle)
    options = ["--home", str(home), "--bootstrap", kafka.bootstrap]
    logs = {name: tmp_path / f"{name}.log" for name in ("updater", "serve")}
    with receiver() as received, ExitStack() as stack:
        settings = {
            "DAT_TRACING": "1",
            "OTEL_EXPORTER_OTLP_ENDPOINT": received.url,
            "OTEL_BSP_SCHEDULE_DELAY": "200",
            "PYTHONPROFILEIMPORTTIME": "1",
        }
        updater = stack.enter_context(Verb(["updater", *options], logs["updater"], "updating", **settings))
        command = ["serve", *options, "--port", "0", "--clock", "data"]
        serve = stack.enter_context(Verb(command, logs["serve"], "serving", **settings))
        updater.wait_ready()
        url = next(word for word in serve.wait_ready().split() if word.startswith("http://"))
        client = stack.enter_context(httpx.Client(base_url=url, timeout=30))
        eventually(lambda: client.get("/readyz").is_success, "ready")
        ask = {"query_id": "q1", "n": 5}
        before = client.get("/v1/retrieve", params=ask, headers={"X-Request-ID": "asked"}).json()
        click = {"query_id": "q1", "item_id": before["items"][0]["item_id"], "answer_id": before["answer_id"]}
        told = {"traceparent": f"00-{TRACE}-{CALLER}-01", "X-Request-ID": "clicked"}
        json = click | {"event_time": bundle.manifest.cut_ms + 1_000}
        posted = client.post("/v1/clicks", json=json, headers=told).raise_for_status().json()
        partition, offset = map(int, posted["token"].split(":")[:2])
        client.get("/v1/retrieve", params=ask | {"wait_for": posted["token"]}).raise_for_status()
        eventually(lambda: bool(received.named("dat-updater", "fold item")), "a trace of the item's fold")
        for side in ("query", "item"):
            eventually(lambda s=side: bool(written(received, s)), f"a trace of the {side}'s row in the online store")
        eventually(lambda: bool(received.named("dat-serve", "POST /v1/clicks")), "a trace of the request")
        eventually(lambda: len(received.named("dat-serve", "answer")) == 2, "traces of both answers")
    (request,) = received.named("dat-serve", "POST /v1/clicks")
    (fold,) = received.named("dat-updater", "fold query")
    (item_fold,) = received.named("dat-updater", "fold item")
    asked = next(
        s for s in received.named("dat-serve", "GET /v1/retrieve") if attributes(s)["dat.request_id"] == "asked"
    )
    answer, wait = (
        next(s for s in received.named("dat-serve", name) if attributes(s)["dat.answer_id"] == before["answer_id"])
        for name in ("answer", "wait")
    )
    # The caller's trace goes on in the request, which the fold's span names, and that one's the next fold's.
    assert (request.trace_id.hex(), request.parent_span_id.hex()) == (TRACE, CALLER)
    said = attributes(request)
    assert (said["dat.request_id"], said["dat.event_id"]) == ("clicked", posted["event_id"])
    assert said["dat.answer_id"] == before["answer_id"]
    assert [(link.trace_id, link.span_id) for link in fold.links] == [(request.trace_id, request.span_id)]
    assert [(link.trace_id, link.span_id) for link in item_fold.links] == [(fold.trace_id, fold.span_id)]
    for side, of in (("query", fold), ("item", item_fold)):
        (write,) = written(received, side)
        assert [(link.trace_id, link.span_id) for link in write.links] == [(of.trace_id, of.span_id)]
        assert attributes(write) == {"dat.rows": 1, "dat.bundle": bundle.version}
    assert attributes(fold)["messaging.batch.message_count"] == 1 and attributes(fold)["dat.bundle"] == bundle.version
    assert (
        answer.parent_span_id == wait.parent_span_id == asked.span_id
        and wait.end_time_unix_nano == answer.start_time_unix_nano
    )
    with free_consumer(kafka) as consumer:
        place = TopicPartition(kafka.topics.clicks, partition)
        consumer.assign([place])
        consumer.seek(place, offset)
        (record,) = consumer.poll(timeout_ms=10_000)[place]
    assert dict(record.headers)["traceparent"].decode() == f"00-{TRACE}-{request.span_id.hex()}-01"
    for name, log in logs.items():
        loaded = imported(log)
        assert loaded >= {"feast", "model.tracing", *TRACES}, name
        assert not loaded & NIGHT, name


@pytest.mark.long
def test_without_the_setting_nothing_of_it_is_loaded_or_sent(tmp_path: Path):
    script = (
        "import sys; from model import tracing\n"
        "with tracing.tracing(False, 'dat'):\n"
        "    with tracing.linked('fold', [], {}): tracing.note({}); tracing.past({'a': 1.0}, {})\n"
        "    assert tracing.headers() == []\n"
        "    assert tracing.provider() is None\n"
        "import streaming.updater\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])\n"
        "import serving.http.api\n"  # FastAPI has the words for it, but neither spans nor exporter
        f"print({TRACES!r} & set(sys.modules))"
    )
    command = [sys.executable, "-W", "ignore", "-c", script]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout.split("\n") == ["[]", "set()", ""]


@pytest.mark.long
def test_a_collector_that_never_answers_does_not_hold_up_the_end(monkeypatch: pytest.MonkeyPatch):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        ending = threading.Event()

        def trace() -> None:
            with tracing.tracing(True, "dat"), tracing.linked("fold", [], {}):
                assert [name for name, _ in tracing.headers()] == ["traceparent"]
            ending.set()

        threading.Thread(target=trace, daemon=True).start()
        assert ending.wait(8)  # its timeout is ten seconds, and then it would try again
    assert tracing.provider() is None


@pytest.mark.parametrize("verb", ["serve", "updater"])
def test_without_the_exporter_the_setting_is_refused_with_what_to_install(run: Run, monkeypatch, verb: str):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "install the extra otel" in run(verb, DAT_TRACING="1").sentence
