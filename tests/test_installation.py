"""What is built installs, and an installation for the day alone runs the day: no torch, Spark, DuckDB."""

import json
import os
import re
import subprocess
import sys
import tarfile
import time
import zipfile
from importlib.metadata import requires
from pathlib import Path

import httpx
import pytest

from devstack.processes import Verb
from model.bundle_store import BundleStore
from tests.streaming.loop import eventually
from tests.tiny import tiny_bundle, tiny_store

ROOT = Path(__file__).parents[1]
UV = [sys.executable, "-m", "uv"]
MOST_MB = 320
"""Memory of a process of the day, on a small bundle."""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a wheel, made from the sdist beside it."""
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run([*UV, "build", "--quiet", "--out-dir", folder, ROOT], check=True)
    return folder


@pytest.fixture(scope="module")
def slim(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ``bin`` of an environment of ``serve.lock`` and the wheel."""
    place = tmp_path_factory.mktemp("slim") / "venv"
    (wheel,) = built.glob("*.whl")
    subprocess.run([*UV, "venv", "--quiet", "--python", sys.executable, place], check=True)
    install = [*UV, "pip", "install", "--quiet", "--python", place / "bin" / "python"]
    subprocess.run([*install, "--no-deps", "--require-hashes", "-r", ROOT / "requirements" / "serve.lock"], check=True)
    subprocess.run([*install, "--no-deps", wheel], check=True)
    return place / "bin"


def names(file: Path) -> set[str]:
    """The packages that a list or a lock names."""
    return {found[1].lower().replace("_", "-") for found in re.finditer(r"^([A-Za-z][\w.-]*)", file.read_text(), re.M)}


@pytest.mark.parametrize("part", ["serve", "play", "stream", "otel", "night", "gpu", "evidence", "dev"])
def test_each_lock_has_what_its_lists_ask_for_by_hash_at_the_versions_of_the_whole(part: str):
    lock = ROOT / "requirements" / f"{part}.lock"
    pins = re.findall(r"^(\S+==\S+)", lock.read_text(), re.M)
    assert set(pins) <= set(re.findall(r"^(\S+==\S+)", (ROOT / "requirements.lock").read_text(), re.M))
    assert lock.read_text().count("\n    --hash=sha256:") >= len(pins)
    assert names(lock) >= names(ROOT / "requirements" / f"{part}.in")
    assert "://" not in lock.read_text()


def test_the_day_needs_nothing_of_the_night_and_no_tool():
    for part in ("serve", "stream", "otel"):
        found = names(ROOT / "requirements" / f"{part}.lock")
        assert not found & {"torch", "pyspark", "duckdb", "ibis-framework", "mlflow-skinny", "pytest", "implicit"}
        assert not found & {"mypy", "grpcio"}


def test_a_plain_installation_asks_for_every_named_library():
    asked = {re.split(r"[\[<=>!; ]", entry)[0] for entry in requires("dat-retrieval") or () if "extra ==" not in entry}
    assert asked >= {"feast", "pyspark", "torch", "faiss-cpu", "kafka-python", "pandas"}


@pytest.mark.slow
@pytest.mark.server
def test_the_wheel_holds_what_the_sources_hold_and_so_does_the_sdist(built: Path):
    (wheel,), (sdist,) = built.glob("*.whl"), built.glob("*.tar.gz")
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests", "benchmarks"}
    wanted = {path for path in tracked if path.split("/")[0] in packages and path.endswith(".py")}
    data = ("feature_repo/cards/", "serving/page/", "devstack/play/kept/")
    wanted |= {path for path in tracked if path.startswith(data)}
    assert wanted <= set(zipfile.ZipFile(wheel).namelist())
    with tarfile.open(sdist) as archive:
        assert wanted <= {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}


@pytest.mark.slow
def test_serve_and_updater_run_in_the_slim_environment_within_their_memory(
    slim: Path, tmp_path: Path, kafka, monkeypatch: pytest.MonkeyPatch
):
    home = tmp_path / "home"
    tiny_store(home)
    bundle = tiny_bundle()
    BundleStore(home / "bundles").publish(bundle)
    monkeypatch.chdir(tmp_path)  # the wheel's modules, not the clone's
    monkeypatch.setattr(sys, "executable", str(slim / "python"))
    monkeypatch.delenv("PYTHONPATH", raising=False)
    options = ["--home", str(home), "--bootstrap", kafka.bootstrap]
    with (
        Verb(["updater", *options], tmp_path / "updater.log", "updating") as updater,
        Verb(["serve", *options, "--port", "0", "--clock", "data"], tmp_path / "serve.log", "serving") as serve,
    ):
        updater.wait_ready()
        url = next(word for word in serve.wait_ready().split() if word.startswith("http://"))
        with httpx.Client(base_url=url, timeout=30) as client:
            eventually(lambda: client.get("/readyz").is_success, "ready", 60)
            before = client.get("/v1/retrieve", params={"query_id": "q1", "n": 5}).json()
            item = before["items"][0]["item_id"]
            click = {"query_id": "q1", "item_id": item, "event_time": bundle.manifest.cut_ms + 1_000}
            posted = client.post("/v1/clicks", json=click).raise_for_status().json()
            after = client.get("/v1/retrieve", params={"query_id": "q1", "n": 5, "wait_for": posted["token"]}).json()
        assert after["items"] != before["items"]
        time.sleep(0.5)
        memory = {child.name: resident_mb(child.process.pid) for child in (updater, serve)}
        print(f"resident MB: {memory}; the environment: {size_mb(slim.parent)} MB")
        assert max(memory.values()) <= MOST_MB


@pytest.mark.slow
@pytest.mark.server
def test_the_playground_is_ready_within_a_minute_in_the_slim_environment(slim: Path, tmp_path: Path):
    out = tmp_path / "play.json"
    command = [slim / "dat", "play", "--once", "--port", "0", "--json", out]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    figures = json.loads(out.read_text())
    print(figures)
    assert figures["ready_s"] <= 60 and not figures["broker"]


def resident_mb(pid: int) -> int:
    """Resident memory of a process (Linux)."""
    return int(re.findall(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[0]) >> 10


def size_mb(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) >> 20
