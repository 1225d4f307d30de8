"""The folder is a Feast repository as Feast's own command expects it."""

import contextlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from feast import FeatureStore

from devstack.ports import free_port
from feature_repo.card import load_card
from feature_repo.store import open_store, register

ROOT = Path(__file__).parents[2]


@pytest.mark.server
def test_feast_apply_works_on_the_folder_and_registers_a_service_for_each_tower(tmp_path: Path, monkeypatch):
    shutil.copytree(ROOT / "feature_repo", tmp_path / "feature_repo", ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "feast.cli.cli", "apply"]
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "DAT_HOME": str(tmp_path / ".dat")}
    done = subprocess.run(
        command, cwd=tmp_path / "feature_repo", env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    monkeypatch.delenv("DAT_HOME", raising=False)
    store = FeatureStore(tmp_path / "feature_repo")
    assert {service.name for service in store.list_feature_services()} == {"query_tower", "item_tower"}
    views = {view.name for view in store.list_feature_views()}
    both = {f"{side}_{view}" for side in ("query", "item") for view in ("profile", "activity", "augmented")}
    assert views == both | {"query_history"}
    read = {projection.name for projection in store.get_feature_service("query_tower").feature_view_projections}
    assert read == {"query_profile", "query_activity", "query_augmented", "query_history"}


def test_feast_by_hand_uses_the_home_and_the_redis_of_the_environment(tmp_path: Path, monkeypatch):
    repo, home = tmp_path / "feature_repo", tmp_path / "elsewhere"
    shutil.copytree(ROOT / "feature_repo", repo, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setenv("DAT_HOME", str(home))
    register(open_store(home), load_card("movielens-100k"), home)
    by_hand = FeatureStore(repo)
    assert {service.name for service in by_hand.list_feature_services()} == {"query_tower", "item_tower"}
    assert by_hand._get_provider() and by_hand.config.online_store.path == str(home / "online.db")
    monkeypatch.setenv("DAT_REDIS", "127.0.0.1:7")
    by_hand = FeatureStore(repo)
    assert by_hand._get_provider() and by_hand.config.online_store.connection_string == "127.0.0.1:7"
    assert not (tmp_path / ".dat").exists()


@pytest.mark.server
def test_the_feast_ui_starts_on_the_folder(tmp_path: Path):
    port = free_port()
    command = [sys.executable, "-m", "feast.cli.cli", "ui", "--host", "127.0.0.1", "--port", str(port)]
    shutil.copytree(ROOT / "feature_repo", tmp_path / "feature_repo", ignore=shutil.ignore_patterns("__pycache__"))
    with subprocess.Popen(
        command, cwd=tmp_path / "feature_repo", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as running:
        try:
            deadline = time.monotonic() + 120
            while time.monotonic() < deadline and running.poll() is None:
                with contextlib.suppress(httpx.TransportError):
                    assert "Feast" in httpx.get(f"http://127.0.0.1:{port}/").text
                    return
                time.sleep(0.3)
            raise AssertionError(f"feast ui did not answer (status {running.poll()})")
        finally:
            running.terminate()
