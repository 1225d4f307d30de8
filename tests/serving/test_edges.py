"""Requests at the edge of what is one: each has its answer, none poisons what others read, none takes memory."""

import base64
import functools
import gzip
import json
import re
import socket
import zlib
from urllib.parse import quote, urlsplit

import pyarrow as pa
import pytest

from model.settings.serving import ApiKey
from serving.ab.answer_ids import AnswerId, NotAnAnswerId
from serving.ab.impressions import read_clicks, read_impressions
from serving.features import NotAFeature, checked
from serving.http.pages import LONGEST
from tests.serving.conftest import Running
from tests.serving.test_limits import serving

CLICK = {"query_id": "q0", "item_id": "i1"}


def encoded(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def refused(reply, status: int = 422, code: str = "not-valid") -> str:
    assert (reply.status_code, reply.json()["code"]) == (status, code), reply.text
    return reply.json()["message"]


DEEP = [
    ("GET", "/v1/retrieve", {"query_id": "q0", "where": "[" * 20_000}, None),
    ("GET", "/v1/items/i1/similar", {"boost": '{"a":' * 3_000}, None),
    ("GET", "/v1/retrieve", {"query_id": "q0", "next": encoded(zlib.compress(b"[" * 200_000))}, None),
    ("POST", "/v1/clicks", None, {**CLICK, "answer_id": encoded(b"[" * 3_000)}),
    ("POST", "/v1/impressions", None, {"query_id": "q0", "items": ["i1"], "answer_id": encoded(b"[" * 3_000)}),
]


@pytest.mark.parametrize(("method", "path", "params", "body"), DEEP, ids=["where", "boost", "next", "click", "seen"])
def test_json_that_is_nested_too_deeply_is_not_valid_wherever_it_stands(running: Running, method, path, params, body):
    refused(running.client.request(method, path, params=params, json=body))


@pytest.mark.parametrize("path", ["/v1/items/%FF", "/v1/items/a%C3%28/similar", "/v1/queries/%FE/clicks"])
def test_a_path_that_is_not_utf_8_names_nobody(running: Running, path: str):
    """All such bytes would be read as the same id."""
    assert "UTF-8" in refused(running.client.get(path))
    refused(running.client.delete("/v1/queries/%FF"))
    refused(running.client.put("/v1/items/%FF", json={"hidden": True}))


def test_an_id_may_end_in_the_name_of_a_placement(running: Running):
    put = running.client.put("/v1/items/a%2Fsimilar", json={"features": {"title": "One of those"}})
    assert put.status_code == 200, put.text
    item = running.client.get("/v1/items/a%2Fsimilar")
    assert (item.status_code, item.json()["item_id"], item.json()["title"]) == (200, "a/similar", "One of those")
    near = running.client.get("/v1/items/a%2Fsimilar/similar?n=3")
    assert near.status_code == 200 and len(near.json()["items"]) == 3
    document = running.client.get("/openapi.json").json()["paths"]
    assert {"/v1/items/{item_id}", "/v1/items/{item_id}/similar"} <= set(document)


IDS = [
    "a\nb",
    "a\n",
    "\n",
    "a\r",
    "..%2f",
    "a/../b",
    "\u202eabc",
    "é",
    "e\u0301",
    "👩‍👩‍👧",
    "\x00",
    " ",
    "%",
    "?a=b#c",
    "x" * 256,
]


@pytest.mark.parametrize("id_", IDS, ids=ascii)
def test_whatever_can_be_clicked_can_be_named_in_a_path_and_is_not_read_as_another(running: Running, id_: str):
    item, query = f"/v1/items/{quote(id_, safe='')}", f"/v1/queries/{quote(id_, safe='')}"
    click = {"query_id": id_, "item_id": id_}
    assert running.client.post("/v1/clicks", json=click).status_code == 202
    put = running.client.put(item, json={"features": {"title": "T"}})
    assert put.status_code == 200 and put.json()["item_id"] == id_, put.text
    assert running.client.get(item).json()["item_id"] == id_
    assert running.client.get(f"{item}/similar?n=1").status_code == 200
    assert running.client.get("/v1/retrieve", params={"query_id": id_, "n": 1}).json()["query_id"] == id_
    assert running.client.get(f"{query}/clicks").status_code == 200
    assert running.client.delete(query).json() == {"status": "forgotten"}
    assert running.client.delete(item).json() == {"status": "deleted"}


def test_a_path_that_the_routes_read_otherwise_opens_nothing(kafka, tmp_path):
    """A pattern's end also stands before a line feed: ``/metrics%0A`` is the route of ``/metrics``."""
    keys = [ApiKey(name="reader", key="a-key-to-read", scopes={"read"})]
    with serving(kafka, tmp_path, keys=keys) as running:
        document = running.client.get("/openapi.json").json()["paths"]
        operations = [("get", "/metrics"), *((method, path) for path, of in document.items() for method in of)]
        for method, path in operations:
            if path in ("/healthz", "/readyz"):
                continue
            filled = re.sub(r"{\w+}", "i1", path)
            for tail in ("%0A", "%0D", "/", "%2F", "%00", "//", "%0A%0A", ";a", "%3F"):
                ask = functools.partial(running.client.request, method, filled + tail, json=CLICK)
                assert ask().status_code == 401, (method, filled + tail)
                if path not in ("/v1/items/{item_id}", "/v1/items/{item_id}/similar") or method != "get":
                    assert ask(headers={"X-API-Key": "a-key-to-read"}).status_code == 403, (method, filled + tail)


def test_half_a_character_and_digits_of_other_scripts_are_not_valid(running: Running):
    headers = {"Content-Type": "application/json"}
    for part in ('"a": "\\ud800"', '"\\ud800": 1', '"a": "é\\udfff"'):
        body = f'{{"query_id": "q0", "item_id": "i1", "context": {{{part}}}}}'
        assert "body.context" in refused(running.client.post("/v1/clicks", content=body, headers=headers))
    for name, value in (("wait_for", "٠:٠"), ("n", "٣"), ("at", "²")):
        assert f"query.{name}" in refused(running.client.get("/v1/retrieve", params={"query_id": "q0", name: value}))


def test_a_request_with_two_hosts_is_none(running: Running):
    url = urlsplit(running.url)
    with socket.create_connection((url.hostname, url.port), timeout=20) as connection:
        connection.sendall(b"GET /v1/status HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")
        assert connection.recv(1_000).startswith(b"HTTP/1.1 400")


def test_an_origin_that_is_none_is_a_foreign_one(running: Running):
    assert running.client.get("/v1/categories", headers={"Origin": "http://["}).status_code == 200
    refused(running.client.post("/v1/clicks", json=CLICK, headers={"Origin": "http://["}), 403, "wrong-origin")


def test_another_method_a_part_of_a_page_and_another_type_of_body_are_answered_as_http_has_it(running: Running):
    wrong = running.client.delete("/v1/retrieve")
    refused(wrong, 405, "not-allowed")
    assert wrong.headers["Allow"] == "GET, POST"
    assert running.client.post("/v1/items/i1").headers["Allow"] == "DELETE, GET, PATCH, PUT"
    for part in ("bytes=abc-", "bytes=99999999-", "bytes=0-10"):
        page = running.client.get("/", headers={"Range": part})
        assert page.status_code == 200 and page.text.startswith("<!doctype html>")
    text = running.client.post("/v1/clicks", content=json.dumps(CLICK), headers={"Content-Type": "text/plain"})
    assert "application/json; it is text/plain" in refused(text)
    for path in ("/v1/queries?limit=1&limit=2", "/v1/queries?limits=1", "/v1/queries/q0/clicks?n=1&n=2"):
        refused(running.client.get(path))
    assert len(running.client.get("/v1/queries?limit=2").json()["query_ids"]) == 2
    assert running.client.get("/v1/queries?prefix=q1").json()["query_ids"] == ["q1"]


def test_a_key_comes_by_any_spelling_of_bearer_and_a_page_may_send_a_request_id(kafka, tmp_path):
    keys, origin = [ApiKey(name="page", key="a-key-for-the-page")], "https://shop.example"
    with serving(kafka, tmp_path, keys=keys, cors_origins=[origin]) as running:
        for given in ("Bearer a-key-for-the-page", "bearer a-key-for-the-page", "BEARER  a-key-for-the-page"):
            assert running.client.get("/v1/categories", headers={"Authorization": given}).status_code == 200
        for given in ("Basic a-key-for-the-page", "Bearer", "Bearer a-key-for-the", "a b c"):
            assert running.client.get("/v1/categories", headers={"Authorization": given}).status_code == 401
        asked = {"Origin": origin, "Access-Control-Request-Method": "GET"}
        allowed = running.client.options("/v1/retrieve", headers=asked).headers["Access-Control-Allow-Headers"]
        assert {"X-API-Key", "X-Request-ID"} <= set(allowed.split(", "))


@pytest.mark.parametrize("time", [10**30, -1, 2**63])
def test_an_answer_id_whose_times_no_table_holds_is_none(time: int):
    for times in ([time, 1], [1, time]):
        with pytest.raises(NotAnAnswerId):
            AnswerId.parse(encoded(json.dumps(["u", *times, "bundle", "stream"]).encode()))


def test_what_strangers_write_to_the_topics_does_not_end_a_report(running: Running):
    """A context may hold anything; a record may be anybody's."""
    answer = running.client.get("/v1/retrieve?query_id=reader&n=2").json()
    seen = {"query_id": "reader", "answer_id": answer["answer_id"], "items": [i["item_id"] for i in answer["items"]]}
    for time in (10**30, "x", None):
        record = {"query_id": "reader", "at": 1, "served": time, "items": [], "bundle": "b", "source": "s"}
        running.producer.send(running.kafka.topics.impressions, json.dumps(record).encode()).get(10)
    assert running.client.post("/v1/impressions", json=seen).status_code == 202
    for context in ({"answer_id": 5}, {"answer_id": None}, {"answer_id": "any text"}):
        body = {"query_id": "reader", "item_id": "i1", "context": context}
        assert running.client.post("/v1/clicks", json=body).status_code == 202
    running.wait(lambda: running.service.impressions.written > 0)
    impressions = read_impressions(running.kafka)
    assert impressions["answer_id"].to_pylist() == [answer["answer_id"]]
    clicks = read_clicks(running.kafka, 0, running.bundle.manifest.rule)
    mine = [who == "reader" for who in clicks["query_id"].to_pylist()]
    assert clicks.filter(pa.array(mine))["answer_id"].to_pylist() == [None, None, "any text"]


TYPES = {"price": pa.float32(), "stock": pa.int64(), "title": pa.string(), "tags": pa.list_(pa.string())}


@pytest.mark.parametrize(
    "given",
    [
        {"price": float("nan")}, {"price": float("inf")}, {"price": 1e300}, {"price": 10**400}, {"stock": 2**63},
        {"title": "\ud800"}, {"tags": ["good", "\udfff"]},
    ],
    ids=str,
)  # fmt: skip
def test_a_value_that_no_store_holds_is_not_a_feature(given):
    with pytest.raises(NotAFeature):
        checked(given, TYPES)
    good = {"price": -3.4e38, "stock": -(2**63), "title": "é 💥", "tags": []}
    assert checked(good, TYPES) == good


def test_a_feature_that_the_store_cannot_hold_is_the_callers_fault_not_the_stores(running: Running):
    for features in ('{"released": ' + "9" * 30 + "}", '{"title": "\\ud800"}', '{"genres": ["\\ud800"]}'):
        headers = {"Content-Type": "application/json"}
        refused(running.client.put("/v1/items/i9", content=f'{{"features": {features}}}', headers=headers))
    assert running.client.get("/readyz").status_code == 200


def flood(running: Running, head: bytes, more: bytes, megabytes: float) -> tuple[float, bytes]:
    """Send a request that does not end; how many megabytes of it were taken, and what came back."""
    url, sent = urlsplit(running.url), 0
    with socket.create_connection((url.hostname, url.port), timeout=20) as connection:
        try:
            connection.sendall(head)
            while sent < megabytes * 1e6:
                connection.sendall(more)
                sent += len(more)
        except OSError:
            pass  # closed
        try:
            return sent / 1e6, connection.recv(1_000)
        except OSError:
            return sent / 1e6, b""


CHUNKED = (
    b"POST /v1/clicks HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n1"
)
FLOODS = {
    "one header": (b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-A: ", b"a" * 65_536),
    "many headers": (b"GET /healthz HTTP/1.1\r\nHost: x\r\n", b"X-A: b\r\n" * 8_192),
    "a long path": (b"GET /", b"a" * 65_536),
    "trailers": (CHUNKED + b"\r\n{\r\n0\r\n", b"X-A: b\r\n" * 8_192),
    "a chunk's name": (CHUNKED + b";name=", b"a" * 65_536),
    "a body that nobody reads": (
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n",
        b"a" * 65_536,
    ),
}


@pytest.mark.parametrize("name", FLOODS)
def test_a_connection_that_brings_more_than_a_request_may_have_is_closed(running: Running, name: str):
    """Not only a body is bounded: all of this was kept in memory, or read for as long as it came."""
    taken, _ = flood(running, *FLOODS[name], megabytes=60)
    # The largest body's size for a head, ten times that for all; the rest lay in the sockets' buffers.
    assert taken < 15
    assert running.client.get("/healthz").status_code == 200


def test_a_url_that_the_server_cannot_read_is_too_large_and_a_pages_longest_token_is_not(running: Running):
    """The parser splits 64 kB; what was longer was called no HTTP."""
    _, said = flood(
        running, b"GET /v1/retrieve?query_id=q0&next=" + b"x" * 66_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", b"", 0
    )
    assert said.startswith(b"HTTP/1.1 431") and b"URL" in said
    assert "next" in refused(running.client.get("/v1/retrieve", params={"query_id": "q0", "next": "x" * LONGEST}))


def test_a_compressed_body_and_a_wrong_answer_id_are_refused_by_name(running: Running):
    packed = gzip.compress(json.dumps(CLICK).encode())
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    assert "Content-Encoding" in refused(running.client.post("/v1/clicks", content=packed, headers=headers))
    for none in ("Identity", ""):
        same = headers | {"Content-Encoding": none}
        assert running.client.post("/v1/clicks", content=json.dumps(CLICK), headers=same).status_code == 202
    assert refused(running.client.post("/v1/clicks", json={**CLICK, "answer_id": "x"})).startswith("body.answer_id: ")


def test_a_head_that_is_too_large_is_refused_and_one_with_a_long_list_is_not(running: Running):
    _, said = flood(running, *FLOODS["one header"], megabytes=0.6)
    # Whoever still writes when the door is closed may not get to read why.
    assert said == b"" or said.startswith(b"HTTP/1.1 431")
    many = [f"not-there-{'x' * 100}-{k}" for k in range(500)]
    reply = running.client.get("/v1/retrieve", params={"query_id": "q0", "n": 3, "exclude": many})
    assert reply.status_code == 200 and len(reply.json()["items"]) == 3
