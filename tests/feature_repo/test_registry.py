"""The registry file is replaced, never written over: who has it open reads the whole old one."""

from pathlib import Path

from feast import Entity
from feast.protos.feast.core.Registry_pb2 import Registry
from feast.value_type import ValueType

from feature_repo.card import load_card
from feature_repo.store import open_store, register


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
