"""The updater goes over to the bundle in service, under load, and back; one that is no good leaves it as it is."""

import contextlib
import logging
import threading
import weakref

import pytest

from model.bundle_follower import BundleFollower
from model.bundle_store import BundleStore
from model.settings.updater import KafkaConnection
from model.shared_bundles import SharedBundles
from streaming.bundle_runtime import BundleRuntime
from tests.conftest import PARTITIONS
from tests.objects import bucket as bucket
from tests.streaming.loop import eventually, folded, produce, running, some_clicks, truth, updater_config
from tests.streaming.test_feast_sink import in_store, online
from tests.tiny import tiny_bundle, tiny_store


@pytest.fixture
def shelf(tmp_path):
    return BundleStore(tmp_path / "bundles")


@pytest.fixture
def store(tmp_path):
    return tiny_store(tmp_path, queries=9, items=12)


class Load:
    """Clicks that keep coming, a few at a time, until told to stop."""

    def __init__(self, kafka: KafkaConnection):
        self.kafka, self.clicks, self._stop = kafka, [], threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Load":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(0.05):
            some = some_clicks(20, seed=len(self.clicks), start=len(self.clicks))
            produce(self.kafka, some)
            self.clicks += some


def counted(kafka: str, bundle, clicks) -> bool:
    by_query, by_item = truth(clicks)
    return folded(kafka, "query", bundle) == by_query and folded(kafka, "item", bundle) == by_item


def test_a_published_bundle_takes_over_under_load_and_so_does_a_rollback(kafka, store, shelf):
    first, second = tiny_bundle("swap-1"), tiny_bundle("swap-2", seed=1)
    shelf.publish(first)
    config = updater_config(kafka, watch_s=0.1)
    with running(first, store, config, shelf=shelf):
        with Load(kafka) as load:
            eventually(lambda: counted_some(kafka, first), "the first bundle works")
            shelf.publish(second)
            eventually(lambda: belongs(store, second), "the second has taken over", 60)
        eventually(lambda: counted(kafka, second, load.clicks), "it knows the clicks of all time", 60)
        eventually(lambda: in_store(store, second, load.clicks), "and so does the store")
        known = sum(folded(kafka, "query", first).values())
        assert 0 < known < len(load.clicks), "the first should have stopped meanwhile"
        shelf.promote(first.version)
        eventually(lambda: in_store(store, first, load.clicks), "the first is back, and knows what it missed", 60)
    assert counted(kafka, first, load.clicks) and counted(kafka, second, load.clicks)


@pytest.mark.slow
def test_bundles_of_a_night_elsewhere_come_through_an_object_store(bucket, kafka, store, shelf, tmp_path):
    """And are worked with while it is away. What is published, not what is here, says which records are needed."""
    night = SharedBundles(tmp_path / "night", bucket.url)
    first, second = tiny_bundle("far-1"), tiny_bundle("far-2", seed=1)
    night.publish(first)
    follower = BundleFollower(SharedBundles(tmp_path, bucket.url, attempts=2), 0.05)
    follower.first()
    clicks = some_clicks(60)
    config = updater_config(kafka, watch_s=0.1)
    with running(shelf.load(), store, config, shelf=shelf, follower=follower):
        produce(kafka, clicks)
        eventually(lambda: in_store(store, first, clicks), "the first bundle's rows are in the store")
        night.publish(second)
        eventually(lambda: in_store(store, second, clicks), "the second has taken over")
        bucket.stop()
        eventually(lambda: follower.error is not None, "the store is away")
        more = some_clicks(60, seed=2, start=60)
        produce(kafka, more)
        eventually(lambda: in_store(store, second, clicks + more), "clicks are folded without it")
        bucket.start()
        night.promote(first.version)
        eventually(lambda: in_store(store, first, clicks + more), "rolled back")
    assert follower.versions() == [first.version, second.version]


@pytest.mark.slow
def test_processes_beyond_the_partitions_are_ready_and_go_over_to_a_new_bundle_too(kafka, store, shelf, caplog):
    caplog.set_level(logging.INFO, logger="streaming.updater")
    first, second = tiny_bundle("spare-1"), tiny_bundle("spare-2", seed=1)
    shelf.publish(first)
    names = [f"process-{number}" for number in range(2 * PARTITIONS + 1)]  # a sink follows two topics
    with contextlib.ExitStack() as processes:
        for name in names:
            config = updater_config(kafka, instance=name, watch_s=0.1)
            processes.enter_context(running(first, store, config, shelf=shelf))  # fails unless it is ready
        clicks = some_clicks(60)
        produce(kafka, clicks)
        eventually(lambda: in_store(store, first, clicks), "the clicks are folded and in the store")
        shelf.publish(second)
        gone_over = f"bundle_in_service bundle={second.version}"
        eventually(lambda: sum(gone_over in text for text in caplog.messages) == len(names), "all have gone over", 60)
        eventually(lambda: in_store(store, second, clicks), "the store has the second bundle's rows alone", 60)


def counted_some(kafka: str, bundle) -> bool:
    return sum(folded(kafka, "item", bundle).values()) > 0


def belongs(store, bundle) -> bool:
    return {row["bundle"] for row in online(store, "query", bundle.queries.ids)} == {bundle.version}


def test_a_bundle_that_is_no_good_leaves_the_old_one_at_work(kafka, store, shelf, caplog):
    good, damaged = tiny_bundle("stays"), tiny_bundle("damaged", seed=1)
    misfit = tiny_bundle("misfit", services={"query_tower": {"query_profile__shoe_size": "Float32"}, "item_tower": {}})
    shelf.publish(good)
    clicks = some_clicks(60)
    with running(good, store, updater_config(kafka, watch_s=0.05), shelf=shelf):
        for bad, why in ((damaged, "is not a usable bundle"), (misfit, "shoe_size")):
            bad.save(shelf.folder / bad.version)
            if bad is damaged:
                (shelf.folder / bad.version / "weights.safetensors").write_bytes(b"torn")
            shelf.promote(bad.version)
            eventually(
                lambda bad=bad, why=why: any(
                    f"bundle_refused bundle={bad.version} stays=stays" in text and why in text
                    for text in caplog.messages
                ),
                "it says so",
            )
        produce(kafka, clicks)
        eventually(lambda: counted(kafka, good, clicks), "the clicks are folded")
        eventually(lambda: in_store(store, good, clicks), "and in the store")


def test_what_a_swap_replaced_is_freed(kafka, store, shelf, monkeypatch):
    """A frozen generation of the garbage collector would keep every bundle that ever was in service."""
    runtimes = []

    class Watched(BundleRuntime):
        def __init__(self, *given):
            super().__init__(*given)
            runtimes.append(weakref.ref(self))

    monkeypatch.setattr("streaming.updater.BundleRuntime", Watched)
    first = tiny_bundle("freed-1")
    shelf.publish(first)
    with running(first, store, updater_config(kafka, watch_s=0.1), shelf=shelf, feast_sink=False):
        for number in (2, 3):
            shelf.publish(tiny_bundle(f"freed-{number}", seed=number))
            eventually(
                lambda number=number: len(runtimes) == number and runtimes[number - 2]() is None,
                "the old one is gone",
                60,
            )
