"""The bundle that is kept with the source, and a home folder made of it: no night, no torch."""

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from devstack.play import market
from feature_repo.card import DatasetCard, load_card
from model.bundle import Manifest
from model.bundle_store import BundleStore

KEPT = Path(__file__).parent / "kept"
"""``bundle/``, and the two catalogues, whose titles the page shows."""


def keep(home: Path, log: Path) -> None:
    """Take the bundle in service of a home, and the catalogues of its log, as what is kept."""
    shelf = BundleStore(home / "bundles")
    version = shelf.current()
    assert version is not None, f"no night has published in {home}"
    shutil.rmtree(KEPT, ignore_errors=True)
    shutil.copytree(shelf.folder / version, KEPT / "bundle")
    for side in ("queries", "items"):
        shutil.copy(log / f"{side}.parquet", KEPT)


def make_home(home: Path) -> DatasetCard:
    """A home with the kept bundle in service, the feature views registered, the profiles online."""
    from feature_repo.store import open_store, register

    home.mkdir(parents=True, exist_ok=True)
    card_file = home / "card.toml"
    card_file.write_text(market.CARD.replace("FOLDER", str(home.absolute())))
    card = load_card(str(card_file))
    (home / "dataset").write_text(card.name)
    shelf = BundleStore(home / "bundles")
    version = Manifest.read(KEPT / "bundle" / "manifest.json").version
    shutil.copytree(KEPT / "bundle", shelf.folder / version)
    shelf.promote(version)
    store = open_store(home)
    register(store, card, home)
    cut = shelf.manifest(version).window[1]
    for side, file in (("query", "queries"), ("item", "items")):
        table = pq.read_table(KEPT / f"{file}.parquet")
        known = pa.array([1] * len(table), pa.int64())
        frame = table.append_column("known", known).to_pandas()
        frame["event_timestamp"] = frame["created_timestamp"] = cut
        store.write_to_online_store(f"{side}_profile", frame)
    return card
