"""The playground's bundle is what its command makes, and a click on its page changes the list."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from devstack.play import kept, market
from model.bundle import FORMAT, Bundle
from model.settings.serving import ServingConfig
from serving.clock import Clock
from serving.retrieval import Ask, Retriever
from serving.snapshot import Snapshot


def test_the_kept_bundle_of_this_release_is_read_and_is_small():
    bundle = Bundle.load(kept.KEPT / "bundle")
    assert bundle.manifest.format == FORMAT and bundle.manifest.dataset == market.NAME
    assert sum(file.stat().st_size for file in kept.KEPT.rglob("*") if file.is_file()) < 1_000_000
    titles = pq.read_table(kept.KEPT / "items.parquet")["title"].to_pylist()
    assert len(set(titles)) > 100 and set(bundle.items.ids) <= {f"item-{n}" for n in range(market.MARKET.items)}


def test_the_catalogues_that_are_kept_are_those_that_the_market_makes(tmp_path: Path):
    market.write(tmp_path)
    for side in ("queries", "items"):
        assert pq.read_table(kept.KEPT / f"{side}.parquet").equals(pq.read_table(tmp_path / f"{side}.parquet"))


def test_queries_and_items_that_came_after_training_are_answered_for():
    bundle = Bundle.load(kept.KEPT / "bundle")
    assert bundle.items.trained < len(bundle.items)
    retriever = Retriever(Snapshot.of(bundle, ServingConfig()), Clock(lambda: bundle.manifest.cut_ms, replay=True))
    answers = retriever.answer([Ask(query_id) for query_id in bundle.queries.ids], None)
    assert all(len(answer.items) for answer in answers)


@pytest.mark.server
@pytest.mark.parametrize("broker", ["--no-broker", pytest.param("--broker", marks=pytest.mark.slow)])
def test_a_click_changes_the_list(tmp_path: Path, broker: str):
    command = [sys.executable, "-W", "ignore", "-m", "cli", "play", broker, "--once", "--port", "0"]
    out = tmp_path / "out.json"
    done = subprocess.run([*command, "--json", out], capture_output=True, text=True, check=False, env=os.environ)
    assert done.returncode == 0, done.stderr
    figures = json.loads(out.read_text())
    assert figures["ready_s"] > 0 and figures["first_change_ms"] > 0 and "install_s" in figures
    assert figures["broker"] == (broker == "--broker")
    assert "no real person" in done.stdout and ("install Java" in done.stdout) != figures["broker"]


@pytest.mark.slow
@pytest.mark.server
@pytest.mark.trains
def test_made_anew_it_is_the_same_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from cli.play import _make

    before = Bundle.load(kept.KEPT / "bundle")
    monkeypatch.setattr(kept, "KEPT", tmp_path / "kept")
    _make()
    again = Bundle.load(tmp_path / "kept" / "bundle")
    assert (again.queries.ids, again.items.ids) == (before.queries.ids, before.items.ids)
    assert again.manifest.config == before.manifest.config and again.manifest.services == before.manifest.services
    np.testing.assert_array_equal(again.queries.clicks, before.queries.clicks)
    # The rest of a training run differs by rounding between processors.
    assert again.manifest.metrics["live_hr100"] == pytest.approx(before.manifest.metrics["live_hr100"], abs=0.03)
