"""SIGKILL at random moments of a night, each followed by a plain re-run, ends in the bundle of an undisturbed run.

``DAT_TEST_KILLS=10`` makes a storm of it, ``DAT_TEST_SEED`` another one.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from model.bundle import Bundle
from model.bundle_store import BundleStore
from tests.market import write_market

KILLS = int(os.environ.get("DAT_TEST_KILLS", "2"))


def start(folder: Path, card: Path, home: str) -> subprocess.Popen:
    settings = {
        "DAT_DATA": str(folder), "DAT_NIGHT__CORES": "2", "DAT_NIGHT__DRIVER_MEMORY": "1g", "OMP_NUM_THREADS": "1",
        "DAT_NIGHT__MODEL__EPOCHS": "4",
    }  # fmt: skip
    command = [sys.executable, "-m", "cli", "nightly", "--no-kafka", "--date", "2023-11-18", "--data", str(card)]
    command += ["--home", str(folder / home), "--json", str(folder / f"{home}.json")]
    return subprocess.Popen(
        command, env=os.environ | settings, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
    )


def finish(run: subprocess.Popen) -> None:
    _, errors = run.communicate()
    assert run.returncode == 0, errors.decode()


def same(one: Bundle, two: Bundle) -> None:
    assert one.version == two.version
    assert one.manifest.metrics == two.manifest.metrics
    for name, weights in one.towers.weights.items():
        assert weights.tobytes() == two.towers.weights[name].tobytes(), name
    for side in ("queries", "items"):
        a, b = getattr(one, side), getattr(two, side)
        assert a.ids == b.ids
        for name, column in a.columns.items():
            assert column.tobytes() == b.columns[name].tobytes(), (side, name)


@pytest.mark.slow
@pytest.mark.timeout(300 + 600 * (KILLS + 1))
def test_a_killed_night_ends_in_the_bundle_of_an_undisturbed_one(tmp_path: Path):
    card = write_market(tmp_path)
    began = time.monotonic()
    finish(start(tmp_path, card, "calm"))
    took = time.monotonic() - began
    calm = BundleStore(tmp_path / "calm" / "bundles").load()
    chance = random.Random(int(os.environ.get("DAT_TEST_SEED", "0")))
    for kill in range(KILLS):
        home = f"storm-{kill}"
        run = start(tmp_path, card, home)
        # Spread over the run, from the imports to the last record, at a random moment of each part of it.
        time.sleep(took * (kill + chance.random()) / KILLS)
        ended = run.poll() is not None
        if not ended and kill % 2:
            os.killpg(run.pid, signal.SIGKILL)  # Spark's JVM with it, as when a machine goes
        elif not ended:
            run.kill()
        run.communicate()
        finish(start(tmp_path, card, home))
        same(calm, BundleStore(tmp_path / home / "bundles").load())
        one, two = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("calm", home))
        assert one["training_set_sha256"] == two["training_set_sha256"]
        print(f"kill {kill + 1} of {KILLS} after {took * (kill + 0.5) / KILLS:.0f} s or so: the same bundle"
              f"{' (it had ended)' if ended else ''}", flush=True)  # fmt: skip
