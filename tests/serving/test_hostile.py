"""Malformed, oversized and hostile requests against ``dat serve`` as a process: every answer is one, none is the
server's fault, and its memory does not grow.
"""

import json
import random
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable

from devstack.processes import Verb
from devstack.synthetic_bundle import made_up_bundle, made_up_home
from tests.conftest import fresh_topics

PATHS = [
    "retrieve", "clicks", "impressions", "items/x", "queries", "queries/x/clicks", "categories", "progress", "status",
]  # fmt: skip
NAMES = ["query_id", "n", "at", "exclude_seen", "category", "details", "wait_for", "where", "limit", "prefix", "shown"]
VALUES = [
    "", "q0", "0", "-1", "1e999", "NaN", "null", "true", "[]", "9" * 40, "\x00", "'; --", "../" * 20, "💥" * 70,
    "x" * 3000,
]  # fmt: skip
BODIES = [None, True, -1, 1e308, "", "q0", "x" * 3000, [], ["q0"] * 101, {}, {"a": {}}, [[[]]], "\ud800"]
RAW = [b"", b"{", b"\xff\xfe\x00", b"[" * 20_000, b'{"query_ids": ["' + b"x" * 300_000 + b'"]}', b"\x00" * 1_000]
HEADERS = [{}, {"Content-Type": "text/xml"}, {"X-API-Key": "x" * 5_000}, {"Content-Type": "application/json; \x7f"}]


@pytest.fixture(scope="module")
def serve(broker, tmp_path_factory) -> Iterator[tuple[httpx.Client, int]]:
    """A client of the service, and its process id."""
    home = tmp_path_factory.mktemp("home")
    kafka = fresh_topics(broker)
    made_up_home(home, made_up_bundle(50, 200, seed=77))
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("DAT_UPDATER__PREFIX", kafka.prefix)
        environment.setenv("DAT_SERVING__MAX_TIMEOUT_MS", "50")
        environment.setenv("DAT_SERVING__DEFAULT_TIMEOUT_MS", "20")
        environment.setenv("DAT_SERVING__RECEIVE_TIMEOUT_S", "2")
        environment.setenv("DAT_SERVING__STORE_TIMEOUT_MS", "5000")
        options = ["--home", str(home), "--bootstrap", kafka.bootstrap, "--port", "0"]
        verb = Verb(["serve", *options], home / "serve.log", "serving")
    with verb:
        url = next(word for word in verb.wait_ready(300).split() if word.startswith("http://"))
        with httpx.Client(base_url=url, timeout=60) as client:
            yield client, verb.process.pid


def hostile(client: httpx.Client, rng: random.Random) -> int:
    """One request of random parts; its status."""
    body: object = {rng.choice([*NAMES, "query_ids", "item_id", "context"]): rng.choice(BODIES) for _ in range(4)}
    content = json.dumps(body if rng.random() < 0.8 else rng.choice(BODIES)).encode()
    return client.request(
        rng.choice(["GET", "GET", "POST", "POST", "PUT", "DELETE", "OPTIONS"]),
        f"/v1/{rng.choice(PATHS)}",
        params={rng.choice(NAMES): rng.choice(VALUES) for _ in range(rng.randrange(4))},
        content=rng.choice(RAW) if rng.random() < 0.2 else content,
        headers={"Content-Type": "application/json"} | rng.choice(HEADERS[:3]),
    ).status_code


def resident_mb(pid: int) -> float:
    """Memory that a process holds."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS:")).split()[1]) / 1024


def test_a_thousand_hostile_requests_break_nothing_and_take_no_memory(serve):
    client, pid = serve
    rng = random.Random(0)
    statuses = {hostile(client, rng) for _ in range(500)}
    before = resident_mb(pid)
    statuses |= {hostile(client, rng) for _ in range(500)}
    assert max(statuses) < 500 and {404, 405, 413, 422} <= statuses
    assert resident_mb(pid) - before < 40
    assert client.get("/readyz").status_code == 200


def abandoned(address: tuple[str, int], count: int, token: str) -> None:
    """Requests that are to be held for long, whose connections are closed at once."""
    head = "GET /v1/retrieve?query_id=q{}&wait_for={}&timeout_ms=50 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    for k in range(count):
        with socket.create_connection(address) as connection:
            connection.sendall(head.format(k % 50, token).encode())


def half_sent(address: tuple[str, int], count: int) -> list[socket.socket]:
    """Connections on which a request has begun that never ends: heads, and bodies."""
    opened = [socket.create_connection(address) for _ in range(count)]
    for k, connection in enumerate(opened):
        head = b"POST /v1/clicks HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        connection.sendall(head + (b"Content-Length: 90\r\n\r\n{" if k % 2 else b""))
    return opened


@pytest.mark.flaky(reruns=2)
def test_while_it_is_attacked_ordinary_questions_are_answered_within_a_second_and_afterwards_in_time(serve):
    """Abandoned waits, half-sent requests, large batches of strangers with details, malformed ones: all at once."""
    client, pid = serve
    url = urlsplit(str(client.base_url))
    address, stop, problems = (url.hostname, url.port), threading.Event(), []

    def attack(action) -> threading.Thread:
        def run() -> None:
            while not stop.is_set():
                try:
                    action()
                except OSError:
                    stop.wait(0.05)
                except Exception as error:
                    problems.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        return thread

    strangers = {"query_ids": [f"stranger-{k}" for k in range(100)], "n": 100, "details": True}
    too_many = strangers | {"n": 1_000}
    rng, mine = random.Random(1), httpx.Client(base_url=str(client.base_url), timeout=60)
    with httpx.Client(base_url=str(client.base_url), timeout=60) as other:
        assert other.post("/v1/retrieve", json=too_many).status_code == 422
        token = other.post("/v1/clicks", json={"query_id": "q1", "item_id": "i1"}).json()["token"]  # nobody counts it
        threads = [
            attack(lambda: abandoned(address, 200, token)),
            attack(lambda: other.post("/v1/retrieve", json=strangers)),
            attack(lambda: hostile(mine, rng)),
        ]
        opened = half_sent(address, 300)
        took, until = [], time.monotonic() + 6
        try:
            while time.monotonic() < until:
                began = time.perf_counter()
                reply = client.get("/v1/retrieve?query_id=q0&n=24")
                took.append(time.perf_counter() - began)
                assert reply.status_code == 200 and len(reply.json()["items"]) == 24
                time.sleep(0.05)
            refused = sum(b"408" in connection.recv(100) for connection in opened)
        finally:
            stop.set()
            for thread in threads:
                thread.join()
            for connection in opened:
                connection.close()
            mine.close()
    assert not problems
    # The tests' own threads share the machine with the service: one pause of theirs is not its fault.
    assert sorted(took)[-3] < 1 and max(took) < 5, sorted(took)[-5:]
    assert refused == 300, "half-sent requests are closed after two seconds"
    after = []
    for _ in range(20):
        began = time.perf_counter()
        assert client.get("/v1/retrieve?query_id=q0&n=24").status_code == 200
        after.append(time.perf_counter() - began)
    assert sorted(after)[10] < 0.1
    deadline = time.monotonic() + 60
    while any(client.get("/v1/status").json()["load"][name] for name in ("pending", "held")):
        assert time.monotonic() < deadline, "somebody is still waited for who has gone away"


@pytest.mark.slow
def test_what_the_openapi_document_allows_and_forbids_is_answered_as_it_says(serve):
    """Requests drawn from the document itself, right and wrong ones; every answer has the form that it promises."""
    import schemathesis
    from schemathesis import GenerationMode
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance

    client, pid = serve
    document = client.get("/openapi.json").json()
    schema = schemathesis.openapi.from_dict(document)
    schema.config.update(base_url=str(client.base_url))
    checks = [not_a_server_error, response_schema_conformance, content_type_conformance]
    asked = 0
    before = resident_mb(pid)
    for operation in (found.ok() for found in schema.get_all_operations()):
        for mode in GenerationMode:

            @settings(
                max_examples=30, deadline=None, database=None, derandomize=True,
                suppress_health_check=list(HealthCheck),
            )  # fmt: skip
            @given(case=operation.as_strategy(mode))
            def ask(case):
                nonlocal asked
                asked += 1
                case.validate_response(case.call(timeout=60), checks=checks)

            with suppress(Unsatisfiable):  # nothing can be wrong about a request without parameters
                ask()
    assert asked > 300
    assert resident_mb(pid) - before < 60
    assert client.get("/readyz").status_code == 200
