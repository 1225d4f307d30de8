"""The loop itself, by the command that a new user types: real broker, Spark, Feast, updater, service."""

import json
import os
import shutil
import signal
import time
from pathlib import Path

import pytest

from tests.market import write_market

REDIS = shutil.which("redis-server")


def _demo(folder: Path, *options: str) -> tuple[list[object], dict[str, str]]:
    arguments = ["demo", "--data", write_market(folder), "--home", folder / "home", "--port", "0", *options]
    return arguments, {
        "DAT_DATA": str(folder),
        "DAT_NIGHT__MODEL__EPOCHS": "3",
        "DAT_NIGHT__GATE_LIVE": "false",
        "PYTHONUNBUFFERED": "1",
    }


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
    """What still runs a minute after the command: Spark's JVM needs one or two to notice that it is alone."""
    deadline = time.monotonic() + 60
    while (found := _processes_of(folder)) and time.monotonic() < deadline:
        time.sleep(0.2)
    return found


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "online", ["redis" if REDIS else "sqlite", pytest.param("sqlite", marks=pytest.mark.slow, id="sqlite-slow")]
)
def test_the_whole_loop_counts_every_click_once_and_leaves_nothing_running(dat, tmp_path: Path, online: str):
    summary_file = tmp_path / "out.json"
    arguments, environment = _demo(tmp_path, "--once", "--clicks", "300", "--json", str(summary_file))
    demo = dat(*arguments, *(["--redis"] if online == "redis" else []), **environment)
    out, errors = demo.communicate()
    assert demo.returncode == 0, out + errors
    summary = json.loads(summary_file.read_text())
    assert summary["clicks_sent"] == summary["clicks_applied_query"] == summary["clicks_applied_item"] == 300
    assert summary["live"]["hr100"] >= summary["live"]["hr50"] > 0
    # Of 150 items, 100 are nearly all: the two differ by noise, unless the service answers by another rule.
    assert summary["live"]["hr100"] > summary["static"]["hr100"] - 0.03
    assert 0 < summary["freshness_ms"]["p50"] <= summary["freshness_ms"]["p99"] < 20_000
    assert set(summary["versions"]) == {"kafka", "spark", "feast", "torch", "faiss"}
    assert "live against static" in out
    assert _left_running(tmp_path) == []


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("stage", ["check the clicks", "start the updater"])
def test_ctrl_c_leaves_no_process_and_no_half_written_bundle(dat, tmp_path: Path, stage: str):
    arguments, environment = _demo(tmp_path, "--once")
    before = {"check the clicks": "land what is new in the log", "start the updater": "load the catalogues"}[stage]
    demo = dat(*arguments, **environment)
    for line in demo.stdout:
        if before in line:
            break
    time.sleep(0.5)
    demo.send_signal(signal.SIGINT)
    rest, errors = demo.communicate(timeout=60)
    assert demo.returncode == 130, rest + errors
    assert "Traceback" not in rest + errors
    assert _left_running(tmp_path) == []
    bundles = tmp_path / "home" / "bundles"
    for bundle in bundles.glob("*") if bundles.is_dir() else []:
        assert (bundle / "manifest.json").is_file()
        assert not bundle.name.startswith(".")
