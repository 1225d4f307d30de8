"""Bundles: what is written is what is read; publishing is all or nothing."""

import json
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from model.bundle import Bundle, BundleError
from model.bundle_store import BundleStore
from tests.tiny import SMALL_AMM, tiny_bundle


@pytest.fixture
def store(tmp_path):
    return BundleStore(tmp_path / "bundles")


def test_a_bundle_read_back_is_the_bundle(store):
    bundle = tiny_bundle("one", offsets={0: 5, 3: 7})
    store.publish(bundle)
    again = store.load()
    assert again.manifest == bundle.manifest
    for side in ("queries", "items"):
        old, new = getattr(bundle, side), getattr(again, side)
        assert old.ids == new.ids
        for name in old.NAMES:
            np.testing.assert_array_equal(getattr(old, name), getattr(new, name))
    for name, value in bundle.towers.weights.items():
        np.testing.assert_array_equal(value, again.towers.weights[name])


def test_ids_that_came_after_training_have_no_embedding_and_stay_so(store):
    bundle = tiny_bundle("one", queries=4, config=SMALL_AMM)
    bundle.queries.add(["q1", "late"])
    store.publish(bundle)
    again = store.load()
    assert again.queries.ids[-1] == "late" and again.queries.trained == 4
    assert again.queries.embedding_rows(again.queries.rows(["q1", "late", "never"])).tolist() == [2, 0, 0]


def test_publishing_puts_the_newest_into_service_and_rolling_back_the_one_before(store):
    for version in ("one", "two"):
        store.publish(tiny_bundle(version))
    assert store.versions() == ["one", "two"] and store.current() == "two"
    store.promote("one")
    assert store.load().version == "one"
    with pytest.raises(BundleError, match="three.*one, two"):
        store.promote("three")


def test_a_crash_while_writing_leaves_the_old_bundle_in_service(store, monkeypatch):
    store.publish(tiny_bundle("one"))
    broken = tiny_bundle("two")

    def crash(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr(type(broken.items), "save", crash)
    with pytest.raises(OSError, match="No space"):
        store.publish(broken)
    assert store.versions() == ["one"] and store.load().version == "one"
    assert not list(store.folder.glob(".two*"))


def test_pruning_keeps_the_newest_and_the_one_in_service(store):
    for version in ("a", "b", "c", "d"):
        store.publish(tiny_bundle(version))
    store.promote("a")
    (store.folder / ".e.4711" / "half").mkdir(parents=True)
    (store.folder / ".current.4711").symlink_to("e")
    assert store.prune(2) == ["b"]
    assert not list(store.folder.glob(".*"))
    assert store.versions() == ["a", "c", "d"] and store.load().version == "a"


def dated(version: str, day: int, parent: str = "") -> Bundle:
    """A bundle whose window ends on a day of November."""
    made = tiny_bundle(version)
    window = (made.manifest.window[0], datetime(2023, 11, day, tzinfo=UTC))
    return replace(made, manifest=made.manifest.model_copy(update={"window": window, "lineage": {"parent": parent}}))


def test_a_night_made_up_for_later_does_not_take_the_service_back_to_its_date(store):
    for bundle in (dated("10th", 10), dated("20th", 20, "10th"), dated("15th", 15, "10th")):
        store.publish(bundle)
    assert store.current() == "20th" and store.versions() == ["10th", "15th", "20th"]


def test_a_night_starts_from_the_bundle_in_service_or_what_that_came_from(store):
    """Also once its own bundle is in service, so that running it again starts from the same; never from one that was
    rolled back."""
    november = [datetime(2023, 11, day, tzinfo=UTC).timestamp() * 1000 for day in range(1, 30)]
    assert store.ancestor(november[20]) is None
    for bundle in (dated("10th", 10), dated("15th", 15, "10th"), dated("20th", 20, "15th")):
        store.publish(bundle)
    assert [store.ancestor(november[day - 1]) for day in (21, 20, 16, 15, 10)] == ["20th", "15th", "15th", "10th", None]
    store.promote("10th")
    assert store.ancestor(november[20]) == "10th"


def rewritten(folder, change) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    change(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_what_a_later_release_of_the_same_format_added_is_ignored(store):
    def add(manifest: dict) -> None:
        manifest["weather"] = manifest["config"]["weather"] = manifest["config"]["tower"]["weather"] = "fair"

    folder = store.publish(tiny_bundle("one"))
    rewritten(folder, add)
    assert store.load().manifest == tiny_bundle("one").manifest.model_copy(
        update={"created": store.load().manifest.created}
    )


def test_a_bundle_of_before_formats_had_numbers_is_read(store):
    rewritten(store.publish(tiny_bundle("one")), lambda manifest: manifest.pop("format"))
    assert store.load().manifest.format == 1


def test_a_bundle_of_a_format_to_come_is_refused_by_name_and_passed_over_where_others_are_meant(store):
    store.publish(tiny_bundle("one"))
    later = store.publish(tiny_bundle("two"))
    rewritten(later, lambda manifest: manifest.update(format=99))
    with pytest.raises(BundleError, match="has format 99, and this release reads"):
        store.load()
    assert store.versions() == ["one"]
    store.promote("one")
    assert store.load().version == "one"
    store.promote("one")
    (store.folder / "current").unlink()
    (store.folder / "current").symlink_to("two")
    store.put_into_service("one")  # a night of this release publishes over it
    assert store.current() == "one"


def test_another_user_may_read_what_is_published(store):
    folder = store.publish(tiny_bundle("one"))
    assert all(file.stat().st_mode & 0o044 == folder.stat().st_mode & 0o044 for file in folder.iterdir())


def test_a_damaged_bundle_is_refused_with_its_path(store):
    folder = store.publish(tiny_bundle("one"))
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["config"]["memory"]["dim"] = 7
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match=str(folder)):
        Bundle.load(folder)
    with pytest.raises(BundleError, match="no bundle is published"):
        BundleStore(folder / "elsewhere").load()


def test_a_bundle_that_cannot_be_read_is_named_and_passed_over(store, caplog):
    for version in ("one", "two"):
        store.publish(tiny_bundle(version))
    (store.folder / "two" / "manifest.json").write_text('{"version": "two", "window": null}')
    assert store.versions() == ["one"]
    assert "bundle_passed_over bundle=two" in caplog.text
    store.promote("one")
    assert store.load().version == "one" and store.ancestor(2**62) == "one"


def test_what_cannot_be_read_back_is_not_published(store):
    store.publish(tiny_bundle("one"))
    bundle = tiny_bundle("two")
    manifest = bundle.manifest.model_copy(update={"metrics": {"live_hr100": float("nan")}})
    with pytest.raises(BundleError, match="not a usable bundle"):
        store.publish(replace(bundle, manifest=manifest))
    assert store.versions() == ["one"] and store.current() == "one"
