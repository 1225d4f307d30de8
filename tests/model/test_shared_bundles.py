"""Homes that share no disk share bundles through an object store: all of one or none, whatever stops whom."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from feature_repo.object_store import StoreAway
from model.bundle import Bundle, BundleError
from model.bundle_follower import BundleFollower
from model.bundle_store import BundleStore
from model.shared_bundles import SharedBundles
from tests.objects import Bucket, Killed, kill_after
from tests.objects import bucket as bucket
from tests.streaming.loop import eventually
from tests.tiny import CUT_MS, tiny_bundle

pytestmark = pytest.mark.long

Home = Callable[[str], SharedBundles]


@pytest.fixture
def home(bucket: Bucket, tmp_path: Path) -> Home:
    """A machine with a disk of its own, by name; asking again for one is a process that starts there."""

    def on(name: str) -> SharedBundles:
        (tmp_path / name).mkdir(exist_ok=True)
        return SharedBundles(tmp_path / name, bucket.url, attempts=2)

    return on


def registry(shelf: SharedBundles) -> Path:
    return shelf.folder.parent / "registry.db"


def same(one: Bundle, two: Bundle) -> bool:
    states = ((one.queries, two.queries), (one.items, two.items))
    weights = all(np.array_equal(weight, two.towers.weights[name]) for name, weight in one.towers.weights.items())
    return weights and all(
        a.ids == b.ids and all(np.array_equal(a.columns[n], b.columns[n]) for n in a.columns) for a, b in states
    )


@pytest.mark.parametrize("kind", ["s3", "file"])
def test_what_one_home_publishes_another_takes_and_a_rollback_from_there_reaches_the_night(
    kind: str, home: Home, tmp_path: Path
):
    on = home if kind == "s3" else lambda name: SharedBundles(tmp_path / name, f"file://{tmp_path}/mounted")
    (tmp_path / "night").mkdir(exist_ok=True)
    night, pod = on("night"), on("pod")
    for ask in (pod.load, BundleFollower(pod, 1).first):
        with pytest.raises(BundleError, match=f"no bundle is published in {pod.where}"):
            ask()
    first, second = tiny_bundle("one"), tiny_bundle("two", seed=1)
    registry(night).write_bytes(b"as of one")
    night.publish(first)
    pod.take()
    assert same(pod.taken.load(), first) and registry(pod).read_bytes() == b"as of one"
    registry(night).write_bytes(b"as of two")
    night.publish(second)
    assert pod.taken.current() == "one", "a home changes when it takes, not before"
    pod.take()
    assert same(pod.taken.load(), second) and registry(pod).read_bytes() == b"as of two"
    assert on("laptop").versions() == ["one", "two"] and on("laptop").described("one") == first.manifest
    with pytest.raises(BundleError, match="no bundle three in .*one, two"):
        on("laptop").promote("three")
    on("laptop").promote("one")
    for shelf in (pod, night):
        shelf.refresh()
        assert shelf.taken.current() == shelf.current() == "one" and shelf.ancestor(CUT_MS + 1) == "one"
    assert same(on("new pod").load("two"), second)


@pytest.mark.parametrize("action", ["publish", "prune", "rewrite"])
def test_a_night_that_is_killed_between_any_two_requests_leaves_whole_bundles_and_the_next_one_ends_its_work(
    action: str, home: Home, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
):
    old, new = tiny_bundle("one"), tiny_bundle("two", seed=1)
    new = replace(new, manifest=new.manifest.model_copy(update={"created": old.manifest.created + timedelta(days=1)}))
    other = tiny_bundle("other", seed=2)
    night = home("night")
    night.publish(old)
    if action == "prune":
        night.publish(new)
    before, kill = bucket.keys, kill_after(monkeypatch, "write", "upload", "delete", "names")

    def blank(folder: Path) -> bool:
        """As forgetting does it: one file after the other, in place."""
        if "q1" not in Bundle.load(folder).queries.ids:
            return False
        changed = Bundle.load(folder).queries.copy()
        changed.forget(["q1"])
        changed.save(folder, "query")
        return True

    def work(shelf: SharedBundles) -> None:
        shelf.refresh()
        if action == "publish":
            shelf.publish(new)
        elif action == "prune":
            shelf.prune(1)
        else:
            shelf.rewrite(blank)

    pod = home("pod")
    pod.take()
    for after in range(100):
        kill(after)
        try:
            work(home("night"))
            break
        except Killed:
            kill(-1)
            for shelf in (pod, home(f"new pod {after}")):
                shelf.take()
                taken = shelf.taken.load()
                expected = new if taken.version == "two" else old
                assert same(taken, expected) or (action == "rewrite" and "q1" not in taken.queries.ids)
    kill(-1)
    assert 2 < after < 99, "each prefix of the requests was tried"
    pod.take()
    if action == "rewrite":
        assert "q1" not in pod.taken.load().queries.ids and "q1" not in home("new pod").load().queries.ids
    else:
        assert same(pod.taken.load(), new)
    index = home("new pod").look()
    assert bucket.keys == {"bundles.json"} | {f"objects/{name}" for name in index.objects} or action == "publish"
    assert bucket.keys != before
    home("night").publish(other)
    pod.take()
    assert same(pod.taken.load(), other), "and the next night publishes"


def test_an_object_that_is_not_what_was_published_is_named_and_the_bundle_before_stays(
    home: Home, bucket: Bucket, caplog: pytest.LogCaptureFixture
):
    night, pod = home("night"), home("pod")
    night.publish(tiny_bundle("one"))
    pod.take()
    night.publish(tiny_bundle("two", seed=1))
    files = json.loads(bucket.get("bundles.json"))["bundles"]["two"]["files"]
    name = f"objects/{files['weights.safetensors']['sha256']}"
    good = bucket.get(name)
    for bad in (good[:-1], good[:-1] + bytes([good[-1] ^ 1])):
        bucket.put(name, bad)
        with pytest.raises(BundleError, match=f"weights.safetensors of bundle two in s3://.*{name}"):
            pod.take()
        assert pod.taken.folders() == ["one"] and pod.taken.load().version == "one"
    follower = BundleFollower(pod, 0.05)
    follower.start()
    eventually(lambda: follower.error is not None, "it says so")
    assert "bundle_not_taken stays=one" in caplog.text
    with pytest.raises(BundleError, match="is not what was published"):
        BundleFollower(home("new pod"), 1).first()
    bucket.put(name, good)
    eventually(lambda: pod.taken.current() == "two" and follower.error is None, "it is taken once it is whole")
    follower.close()


def test_while_the_store_is_away_a_home_goes_on_with_what_it_has(
    home: Home, bucket: Bucket, caplog: pytest.LogCaptureFixture
):
    night, pod = home("night"), home("pod")
    night.publish(tiny_bundle("one"))
    pod.take()
    bucket.stop()
    follower = BundleFollower(home("pod"), 0.05)
    follower.first()
    assert "s3://" in str(follower.error) and pod.taken.load().version == "one"
    assert follower.versions() == [], "what is published is not known: nothing of it may be deleted"
    with pytest.raises(StoreAway, match="s3://.* does not answer"):
        BundleFollower(home("new pod"), 1).first()
    with pytest.raises(StoreAway):
        night.refresh()
    follower.start()
    bucket.start()
    night.publish(tiny_bundle("two", seed=1))
    eventually(lambda: pod.taken.current() == "two" and follower.error is None, "it is back")
    assert "bundles_taken_again" in caplog.text and follower.versions() == ["one", "two"]
    follower.close()


def test_the_store_keeps_as_many_as_a_folder_does_and_copies_follow(home: Home, bucket: Bucket):
    night, pod = home("night"), home("pod")
    for number, version in enumerate("abcd"):
        night.publish(tiny_bundle(version, seed=number))
        pod.take()
    night.promote("a")
    bucket.put("objects/left-by-a-killed-night", b"half")
    assert night.prune(2) == ["b"]
    pod.take()
    for shelf in (night, pod):
        assert shelf.versions() == ["a", "c", "d"] == shelf.taken.folders() and shelf.taken.current() == "a"
    assert bucket.keys == {"bundles.json"} | {f"objects/{name}" for name in night.look().objects}


def test_bundles_of_a_home_that_begins_to_share_are_published_as_they_are(home: Home, tmp_path: Path):
    alone = BundleStore(tmp_path / "night" / "bundles")
    for version in ("one", "two"):
        alone.publish(tiny_bundle(version))
    alone.promote("one")
    home("night").refresh()
    pod = home("pod")
    pod.take()
    assert pod.versions() == ["one", "two"] and pod.taken.current() == "one" and alone.versions() == ["one", "two"]


def test_a_bundle_and_a_list_of_a_format_to_come_are_named_and_passed_over(
    home: Home, bucket: Bucket, caplog: pytest.LogCaptureFixture
):
    night, pod = home("night"), home("pod")
    night.publish(tiny_bundle("one"))
    pod.take()
    later = tiny_bundle("later", seed=1)
    night.publish(replace(later, manifest=later.manifest.model_copy(update={"format": 1})))
    listed = json.loads(bucket.get("bundles.json"))
    listed["bundles"]["later"]["format"] = 99
    bucket.put("bundles.json", json.dumps(listed).encode())
    assert home("night").versions() == ["one"] and "bundle_passed_over bundle=later" in caplog.text
    for text, why in ((json.dumps(listed | {"format": 99}), "has format 99, and this release reads"), ("{", "delete")):
        bucket.put("bundles.json", text.encode())
        with pytest.raises(BundleError, match=why):
            pod.take()
    assert pod.taken.load().version == "one"
