"""The registry file is replaced, never written over: who has it open reads the whole old one."""

from pathlib import Path

import pytest
from feast import Entity
from feast.protos.feast.core.Registry_pb2 import Registry
from feast.value_type import ValueType

from feature_repo.card import load_card
from feature_repo.store import open_store, register
from streaming.contract import ContractError, check_services
from tests.tiny import tiny_bundle, tiny_store


def test_a_reader_of_the_registry_sees_the_whole_old_one_or_the_whole_new_one(tmp_path: Path):
    store = open_store(tmp_path)
    register(store, load_card("movielens-100k"), tmp_path)
    before = (tmp_path / "registry.db").read_bytes()
    with (tmp_path / "registry.db").open("rb") as reader:
        store.apply(Entity(name="session", value_type=ValueType.STRING))
        assert reader.read() == before
    names = {entity.spec.name for entity in Registry.FromString((tmp_path / "registry.db").read_bytes()).entities}
    assert names >= {"query", "item", "session"}
    assert not list(tmp_path.glob(".registry*"))


def test_services_that_a_later_release_registered_are_refused_with_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    manifest = tiny_bundle().manifest
    for number in (1, 3):
        with monkeypatch.context() as release:
            release.setattr("feature_repo.views.FORMAT", number)
            store = tiny_store(tmp_path / str(number))
        if number == 1:
            check_services(store, manifest)
    with pytest.raises(ContractError, match="in format 3, and this release reads 1 to 1: run the release that"):
        check_services(store, manifest)
