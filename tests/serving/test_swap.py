"""Publishing and rolling back under load: no failed request, and no answer of two bundles."""

import threading

import httpx
import numpy as np
import pytest

from model.bundle_follower import BundleFollower
from model.bundle_store import BundleStore
from model.settings.serving import ServingConfig
from model.shared_bundles import SharedBundles
from serving.service import Service
from tests.objects import Bucket
from tests.objects import bucket as bucket
from tests.serving.conftest import item_rows, serve_http
from tests.tiny import CUT_MS, WIDTH, tiny_bundle, tiny_store

ITEMS = 40


@pytest.fixture
def serving(kafka, tmp_path):
    shelf, store = BundleStore(tmp_path / "bundles"), tiny_store(tmp_path, items=ITEMS)
    first = tiny_bundle(f"{tmp_path.name}-1", items=ITEMS)
    shelf.publish(first)
    config = ServingConfig(watch_s=0.05, swap_patience_s=5)
    service = Service(first, store, kafka, tmp_path, config)
    with serve_http(service, store, first, kafka) as running:
        yield running, shelf, first, tiny_bundle(f"{tmp_path.name}-2", items=ITEMS, seed=1)


def test_swap_and_rollback_under_load(serving):
    running, shelf, first, second = serving
    params = {"query_id": "q1", "n": ITEMS, "at": CUT_MS, "exclude_seen": False}
    right = {first.version: running.client.get("/v1/retrieve", params=params).json()["items"]}
    answers, failures, stop = [], [], threading.Event()

    def load() -> None:
        with httpx.Client(base_url=running.url, timeout=30) as client:
            while not stop.is_set():
                reply = client.get("/v1/retrieve", params=params)
                if reply.status_code == 200:
                    answers.append(reply.json())
                else:
                    failures.append(reply.text)
                stop.wait(0.03)

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    version = lambda: running.client.get("/v1/status").json()["bundle"]["version"]  # noqa: E731
    shelf.publish(second)
    running.wait(lambda: version() == second.version)
    right[second.version] = running.client.get("/v1/retrieve", params=params).json()["items"]
    for back in (first, second, first):
        shelf.promote(back.version)
        running.wait(lambda v=back.version: version() == v)
    stop.set()
    for thread in threads:
        thread.join()
    assert not failures
    assert right[first.version] != right[second.version]
    assert {answer["bundle"] for answer in answers} == set(right)
    for answer in answers:
        expected = right[answer["bundle"]]
        assert [item["item_id"] for item in answer["items"]] == [item["item_id"] for item in expected]
        np.testing.assert_allclose([i["score"] for i in answer["items"]], [i["score"] for i in expected], atol=1e-4)


def test_the_new_bundle_waits_until_it_knows_what_the_old_one_knows(serving):
    running, shelf, first, second = serving
    vectors = np.ones((1, WIDTH), np.float32)
    running.publish(item_rows(["i0"], vectors, last_click=CUT_MS + 5_000))
    running.wait(lambda: running.service.snapshot.corpus.newest_event == CUT_MS + 5_000)
    shelf.publish(second)
    running.wait(lambda: running.client.get("/v1/status").json()["bundle"]["preparing"] == second.version)
    assert running.service.snapshot.version == first.version
    running.publish(item_rows(["i0"], vectors, last_click=CUT_MS + 6_000), bundle=second.version)
    running.wait(lambda: running.service.snapshot.version == second.version)


def test_a_bundle_that_does_not_fit_is_refused_and_the_old_one_stays(serving, tmp_path):
    running, shelf, first, second = serving
    other = {"query_tower": {"query_profile__shoe_size": "Float32"}, "item_tower": {}}
    shelf.publish(tiny_bundle(f"{tmp_path.name}-3", items=ITEMS, services=other))
    running.wait(lambda: f"{tmp_path.name}-3" in running.client.get("/v1/status").json()["bundle"]["refused"])
    assert "shoe_size" in running.client.get("/v1/status").json()["bundle"]["refused"][f"{tmp_path.name}-3"]
    assert running.client.get("/v1/retrieve", params={"query_id": "q1"}).json()["bundle"] == first.version
    shelf.publish(second)
    running.wait(lambda: running.service.snapshot.version == second.version)


def test_bundles_of_a_night_elsewhere_come_through_an_object_store_and_answers_go_on_without_it(
    bucket: Bucket, kafka, tmp_path
):
    night, laptop = (SharedBundles(tmp_path / name, bucket.url) for name in ("night", "laptop"))
    tiny_store(tmp_path / "night", items=1)
    first, second = (tiny_bundle(f"{tmp_path.name}-{n}", items=ITEMS, seed=n) for n in (1, 2))
    night.publish(first)
    store = tiny_store(tmp_path / "pod", items=ITEMS)
    follower = BundleFollower(SharedBundles(tmp_path / "pod", bucket.url, attempts=2), 0.05)
    follower.first()
    config = ServingConfig(watch_s=0.05, swap_patience_s=1)
    service = Service(follower.bundles.taken.load(), store, kafka, tmp_path / "pod", config, follower)
    with serve_http(service, store, first, kafka) as running:
        told = lambda: running.client.get("/v1/status").json()["bundle"]  # noqa: E731
        night.publish(second)
        running.wait(lambda: told()["version"] == second.version)
        laptop.promote(first.version)
        running.wait(lambda: told()["version"] == first.version)
        bucket.stop()
        running.wait(lambda: bucket.url in (told()["not_taken"] or ""))
        assert "dat_bundles_ok 0.0" in running.client.get("/metrics").text
        assert [running.client.get(path).status_code for path in ("/healthz", "/readyz")] == [200, 200]
        assert running.client.get("/v1/retrieve", params={"query_id": "q1"}).json()["bundle"] == first.version
        bucket.start()
        laptop.promote(second.version)
        running.wait(lambda: told()["version"] == second.version and told()["not_taken"] is None)
        assert "dat_bundles_ok 1.0" in running.client.get("/metrics").text
