"""Bundles: what is written is what is read; publishing is all or nothing."""

import json
from dataclasses import fields, replace
from datetime import UTC, datetime

import numpy as np
import pytest
import torch

from tests.tiny import tiny_bundle
from training.bundle import Bundle, BundleError, Shelf
from training.config import DATConfig, TowerConfig
from training.dat import DAT
from training.warm_start import warm_start


@pytest.fixture
def shelf(tmp_path):
    return Shelf(tmp_path / "bundles")


def test_a_bundle_read_back_is_the_bundle(shelf):
    bundle = tiny_bundle("one", offsets={0: 5, 3: 7})
    shelf.publish(bundle)
    again = shelf.load()
    assert again.manifest == bundle.manifest
    for side in ("queries", "items"):
        old, new = getattr(bundle, side), getattr(again, side)
        assert old.ids == new.ids
        for field in fields(old):
            if field.name != "ids":
                np.testing.assert_array_equal(getattr(old, field.name), getattr(new, field.name))
    for name, value in bundle.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[name])


def test_publishing_puts_the_newest_into_service_and_rolling_back_the_one_before(shelf):
    for version in ("one", "two"):
        shelf.publish(tiny_bundle(version))
    assert shelf.versions() == ["one", "two"] and shelf.current() == "two"
    shelf.promote("one")
    assert shelf.load().version == "one"
    with pytest.raises(BundleError, match="three.*one, two"):
        shelf.promote("three")


def test_a_crash_while_writing_leaves_the_old_bundle_in_service(shelf, monkeypatch):
    shelf.publish(tiny_bundle("one"))
    broken = tiny_bundle("two")

    def crash(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr(type(broken.items), "save", crash)
    with pytest.raises(OSError, match="No space"):
        shelf.publish(broken)
    assert shelf.versions() == ["one"] and shelf.load().version == "one"
    assert not list(shelf.folder.glob(".two*"))


def test_pruning_keeps_the_newest_and_the_one_in_service(shelf):
    for version in ("a", "b", "c", "d"):
        shelf.publish(tiny_bundle(version))
    shelf.promote("a")
    (shelf.folder / ".e.4711" / "half").mkdir(parents=True)
    (shelf.folder / ".current.4711").symlink_to("e")
    assert shelf.prune(2) == ["b"]
    assert not list(shelf.folder.glob(".*"))
    assert shelf.versions() == ["a", "c", "d"] and shelf.load().version == "a"


def dated(version: str, day: int, parent: str = "") -> Bundle:
    """A bundle whose window ends on a day of November."""
    made = tiny_bundle(version)
    window = (made.manifest.window[0], datetime(2023, 11, day, tzinfo=UTC))
    return replace(made, manifest=made.manifest.model_copy(update={"window": window, "lineage": {"parent": parent}}))


def test_a_night_made_up_for_later_does_not_take_the_service_back_to_its_date(shelf):
    for bundle in (dated("10th", 10), dated("20th", 20, "10th"), dated("15th", 15, "10th")):
        shelf.publish(bundle)
    assert shelf.current() == "20th" and shelf.versions() == ["10th", "15th", "20th"]


def test_a_night_starts_from_the_bundle_in_service_or_what_that_came_from(shelf):
    """Also once its own bundle is in service, so that running it again starts from the same; never from one that was
    rolled back."""
    november = [datetime(2023, 11, day, tzinfo=UTC).timestamp() * 1000 for day in range(1, 30)]
    assert shelf.ancestor(november[20]) is None
    for bundle in (dated("10th", 10), dated("15th", 15, "10th"), dated("20th", 20, "15th")):
        shelf.publish(bundle)
    assert [shelf.ancestor(november[day - 1]) for day in (21, 20, 16, 15, 10)] == ["20th", "15th", "15th", "10th", None]
    shelf.promote("10th")
    assert shelf.ancestor(november[20]) == "10th"


def test_a_damaged_bundle_is_refused_with_its_path(shelf):
    folder = shelf.publish(tiny_bundle("one"))
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["config"]["tower"]["output_dim"] = 7
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match=str(folder)):
        Bundle.load(folder)
    with pytest.raises(BundleError, match="no bundle is published"):
        Shelf(folder / "elsewhere").load()


def test_a_warm_start_takes_what_it_knows_by_id_and_leaves_new_ids_fresh():
    old = tiny_bundle("one", queries=4, items=6)
    spec, item_spec, config = old.manifest.query, old.manifest.item, old.manifest.config
    torch.manual_seed(5)
    model = DAT(3, 7, spec, item_spec, config)
    fresh = model.query_tower.ids.weight.detach().clone()
    torch.nn.init.normal_(old.model.query_tower.shortcut.weight)  # it begins as zeros, and would not be missed
    warm_start(model, ["q3", "new", "q0"], [f"i{k}" for k in range(7)], spec, item_spec, old)
    table, known = model.query_tower.ids.weight, old.model.query_tower.ids.weight
    assert torch.equal(table[1], known[4]) and torch.equal(table[3], known[1]) and torch.equal(table[0], known[0])
    assert torch.equal(table[2], fresh[2])
    assert torch.equal(model.item_tower.layers[0].weight, old.model.item_tower.layers[0].weight)
    assert torch.equal(model.query_tower.shortcut.weight, old.model.query_tower.shortcut.weight)
    latest, before = model.query_tower.latest, old.model.query_tower.latest
    assert torch.equal(latest.items.weight[:7], before.items.weight)
    assert latest.items.weight[7].any(), "the new item keeps its own"


def test_a_warm_start_takes_no_layer_whose_inputs_mean_something_else():
    """A tower without latest items and with two memories more has a first layer as wide."""
    shape = TowerConfig(embedding_dim=8, hidden=(16,), output_dim=8)
    old = tiny_bundle("one", config=DATConfig(tower=shape, memories=(0.4, 0.1)))
    spec, item_spec = old.manifest.query, old.manifest.item
    model = DAT(6, 9, spec, item_spec, DATConfig(tower=shape, memories=(0.4, 0.1, 0.02, 0.01), latest=0))
    tower, before = model.query_tower, old.model.query_tower
    assert tower.layers[0].weight.shape == before.layers[0].weight.shape
    fresh = tower.layers[0].weight.detach().clone()
    warm_start(model, old.queries.ids, old.items.ids, spec, item_spec, old)
    assert torch.equal(tower.layers[0].weight, fresh) and not tower.shortcut.weight.any()
    assert torch.equal(tower.layers[2].weight, before.layers[2].weight)
