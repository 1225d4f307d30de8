"""What operators say of items: it holds when the call returns, in every process, for good."""

import time

import pytest

from serving.features import SdkWriter
from serving.service import Service
from tests.serving.conftest import PATIENT, Running, http, serve_http
from tests.tiny import tiny_bundle, tiny_store


def recommended(running: Running, query_id: str = "q1", **params) -> list[str]:
    answer = running.client.get("/v1/retrieve", params={"query_id": query_id, "n": 100, **params}).json()
    return [item["item_id"] for item in answer["items"]]


@pytest.mark.parametrize("said", [{"hidden": True}, {"available": False}, {"expires_at": 1_000_000_000_000}])
def test_an_item_that_is_hidden_sold_out_or_expired_is_in_no_answer_when_the_call_returns(running: Running, said):
    first = recommended(running)[0]
    told = running.client.patch(f"/v1/items/{first}", json=said)
    assert told.status_code == 200 and not told.json()["in_index"] and len(told.json()["held"]) == 1
    assert first not in recommended(running) and first not in recommended(running, "nobody-knows-me")
    back = running.client.put(f"/v1/items/{first}", json={}).json()
    assert back["in_index"] and recommended(running)[0] == first


def test_an_item_expires_by_itself(running: Running):
    first = recommended(running)[0]
    running.client.patch(f"/v1/items/{first}", json={"expires_at": int(time.time() * 1000) + 1_000})
    assert first in recommended(running)
    running.wait(lambda: first not in recommended(running))
    running.client.put(f"/v1/items/{first}", json={})


def test_an_item_with_features_is_found_without_a_click_and_filters_see_it(running: Running):
    features = {"title": "Brand new", "genres": ["western"], "released": 1_699_000_000_000}
    put = running.client.put("/v1/items/brand-new", json={"features": features})
    assert put.status_code == 200, put.text
    assert put.json()["in_index"] and put.json()["title"] == "Brand new" and put.json()["features"] == features
    assert recommended(running, category="western") == ["brand-new"]
    running.client.patch("/v1/items/brand-new", json={"features": {"genres": ["noir"], "released": None}})
    told = running.client.get("/v1/items/brand-new").json()
    assert told["features"] == {"title": "Brand new", "genres": ["noir"], "released": None}
    assert recommended(running, category="noir") == ["brand-new"]
    assert running.client.delete("/v1/items/brand-new").status_code == 200
    assert recommended(running, category="noir") == []


def test_a_put_without_features_leaves_those_that_were_said_in_every_process(running: Running, tmp_path):
    """The store had the catalogue's, until others were said: a process that starts later would know others."""
    said = {"title": "Renamed", "genres": ["renamed"]}
    running.client.patch("/v1/items/i9", json={"features": said})
    for put in ({}, {"hidden": True}):
        assert running.client.put("/v1/items/i9", json=put).json()["title"] == "Renamed"
    running.client.delete("/v1/items/i9")
    bulk = [{"item_id": "i9", "features": said | {"genres": ["again"]}}, {"item_id": "i9"}]
    running.client.post("/v1/items", json={"items": bulk})
    later = Service(running.bundle, running.store, running.kafka, tmp_path, PATIENT)
    with serve_http(later, running.store, running.bundle, running.kafka) as other:
        other.wait(lambda: other.service.items.caught_up)
        assert recommended(other, category="again") == recommended(running, category="again") == ["i9"]


def test_an_item_whose_catalogue_has_no_title_has_none(running: Running):
    """It was called by the mark that the catalogue knows it."""
    SdkWriter(running.store).write({"i65": {"genres": ["untitled"]}})
    told = running.client.get("/v1/items/i65")
    assert told.status_code == 200 and told.json()["title"] is None, told.text
    listed = running.client.get("/v1/retrieve?query_id=q1&n=100&details=true&pinned=i65").json()["items"]
    assert all(item["title"] is None or isinstance(item["title"], str) for item in listed)


def test_a_wrong_feature_of_one_of_many_items_says_whose_it_is_and_none_is_written(running: Running):
    items = [{"item_id": "one-good", "features": {"genres": ["x"]}}, {"item_id": "one-bad", "features": {"genres": 5}}]
    reply = running.client.post("/v1/items", json={"items": items})
    assert reply.status_code == 422 and reply.json()["message"].startswith("body.items.1.features.genres: ")
    assert running.client.get("/v1/items/one-good").status_code == 404


def test_many_items_at_once(running: Running):
    items = [{"item_id": f"bulk-{k}", "features": {"genres": ["bulk"]}, "hidden": k % 2 == 0} for k in range(200)]
    assert running.client.post("/v1/items", json={"items": items}).status_code == 200
    assert set(recommended(running, category="bulk")) == {f"bulk-{k}" for k in range(1, 200, 2)}
    assert running.client.post("/v1/items", json={"items": items * 6}).status_code == 422


def test_a_feature_that_the_catalogue_has_not_is_an_error_that_names_those_it_has(running: Running):
    put = lambda features: running.client.put("/v1/items/i1", json={"features": features})  # noqa: E731
    wrong = put({"genre": ["war"]})
    assert wrong.status_code == 422 and "genres" in wrong.json()["message"]
    for value in ("war", [1], 3, {"a": 1}):
        assert "a list" in put({"genres": value}).json()["message"]
    assert put({"released": "yesterday"}).status_code == put({"released": True}).status_code == 422


def test_what_is_said_holds_in_other_processes_after_restarts_and_for_other_bundles(kafka, tmp_path):
    """Deleted, and clicked again and again: neither another bundle nor the stream brings it back."""
    store = tiny_store(tmp_path, queries=8, items=60)
    one, two = tiny_bundle("one", items=60), tiny_bundle("two", items=60, seed=1)
    first, other = (Service(bundle, store, kafka, tmp_path, PATIENT) for bundle in (one, two))
    with serve_http(first, store, one, kafka) as running, http(other) as url:
        gone = recommended(running)[0]
        running.client.delete(f"/v1/items/{gone}")
        there = {"query_id": "q1", "n": 100}
        asked = lambda: running.client.get(f"{url}/v1/retrieve", params=there).json()["items"]  # noqa: E731
        running.wait(lambda: gone not in [item["item_id"] for item in asked()])
        assert other.items.get(gone).deleted
        later = Service(two, store, kafka, tmp_path, PATIENT)
        with serve_http(later, store, two, kafka) as again:
            again.wait(lambda: again.client.get("/readyz").status_code == 200)
            assert gone not in recommended(again)
            again.service._swap(again.service._prepare(one))
            assert gone not in recommended(again) and len(recommended(again)) >= 50
            again.client.put(f"/v1/items/{gone}", json={})
            assert gone in recommended(again)
        running.wait(lambda: gone in recommended(running))
