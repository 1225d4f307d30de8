"""The loop itself, by the command that a new user types: real broker, Spark, Feast, updater, service."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.market import write_market


def _demo(folder: Path, *options: str) -> tuple[list[str], dict[str, str]]:
    card = write_market(folder)
    command = [sys.executable, "-m", "cli", "demo", "--data", str(card), "--home", str(folder / "home"), "--port", "0"]
    settings = {"DAT_DATA": str(folder), "DAT_NIGHT__MODEL__EPOCHS": "3"}
    return [*command, *options], os.environ | settings


def _processes_of(folder: Path) -> list[str]:
    """Command lines of the processes that work in a folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(folder) in line and path.parent.name != str(os.getpid()):
            found.append(line)
    return found


def _left_running(folder: Path) -> list[str]:
    """What still runs ten seconds after the command: Spark's JVM needs one or two to notice that it is alone."""
    deadline = time.monotonic() + 10
    while (found := _processes_of(folder)) and time.monotonic() < deadline:
        time.sleep(0.2)
    return found


@pytest.mark.timeout(900)
@pytest.mark.parametrize("online", ["sqlite", "redis"])
def test_the_whole_loop_counts_every_click_once_and_leaves_nothing_running(tmp_path: Path, online: str):
    if online == "redis" and not shutil.which("redis-server"):
        pytest.skip("there is no redis-server on the PATH")
    summary_file = tmp_path / "out.json"
    command, environment = _demo(tmp_path, "--once", "--clicks", "300", "--json", str(summary_file))
    command += ["--redis"] if online == "redis" else []
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads(summary_file.read_text())
    assert summary["clicks_sent"] == summary["clicks_applied_query"] == summary["clicks_applied_item"] == 300
    assert summary["live"]["hr100"] >= summary["live"]["hr50"] > 0
    assert summary["live"]["hr100"] > summary["static"]["hr100"], "12 clicks more of 300; the first places are noise"
    assert 0 < summary["freshness_ms"]["p50"] <= summary["freshness_ms"]["p99"] < 20_000
    assert set(summary["versions"]) == {"kafka", "spark", "feast", "torch", "faiss"}
    assert "live against static" in done.stdout
    assert _left_running(tmp_path) == []


@pytest.mark.timeout(900)
@pytest.mark.parametrize("stage", ["compute features", "start the updater"])
def test_ctrl_c_leaves_no_process_and_no_half_written_bundle(tmp_path: Path, stage: str):
    command, environment = _demo(tmp_path, "--once")
    before = {"compute features": "land the log", "start the updater": "load the catalogues"}[stage]
    with subprocess.Popen(
        command,
        env=environment | {"PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as running:
        for line in running.stdout:
            if before in line:
                break
        time.sleep(0.5)
        running.send_signal(signal.SIGINT)
        rest = running.stdout.read()
        assert running.wait(60) == 130, rest
    assert "Traceback" not in rest
    assert _left_running(tmp_path) == []
    bundles = tmp_path / "home" / "bundles"
    for bundle in bundles.glob("*") if bundles.is_dir() else []:
        assert (bundle / "manifest.json").is_file()
        assert not bundle.name.startswith(".")
