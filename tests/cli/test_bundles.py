"""Rolling back is one command."""

import dataclasses
from datetime import timedelta
from pathlib import Path

import pytest

from model.bundle_store import BundleStore
from model.shared_bundles import open_bundles
from tests.cli.conftest import Run
from tests.tiny import tiny_bundle


@pytest.mark.parametrize("shared", [False, True], ids=["in the home", "in an object store"])
def test_roll_back_and_promote(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shared: bool):
    url = f"file://{tmp_path}/store" if shared else None
    monkeypatch.setenv("DAT_BUNDLES", url or "")
    shelf = open_bundles(tmp_path / "night" if shared else tmp_path, url)
    first = tiny_bundle()
    later = first.manifest.model_copy(
        update={"version": "second", "created": first.manifest.created + timedelta(days=1)}
    )
    shelf.publish(first)
    shelf.publish(dataclasses.replace(first, manifest=later))
    assert shelf.current() == "second"
    assert run("bundles", "--home", str(tmp_path), "--rollback").status == 0
    shelf.refresh()
    assert shelf.current() == first.version
    assert "no bundle before" in run("bundles", "--home", str(tmp_path), "--rollback").sentence
    listed = run("bundles", "--home", str(tmp_path), "--promote", "second")
    shelf.refresh()
    assert shelf.current() == "second" and first.version in listed.out
    assert "no bundle nonsense" in run("bundles", "--home", str(tmp_path), "--promote", "nonsense").sentence


def test_the_list_shows_whole_versions_on_a_narrow_screen_and_a_lost_choice_is_told_from_no_bundle(
    run: Run, tmp_path: Path
):
    shelf, version = BundleStore(tmp_path / "bundles"), "2026-01-11-7589f1aa"
    first = tiny_bundle(version)
    first.manifest.lineage["parent"] = "2026-01-10-0123abcd"
    shelf.publish(first)
    listed = run("bundles", "--home", str(tmp_path)).out
    assert version in listed and "2026-01-10-0123abcd" in listed
    (shelf.folder / "current").unlink()
    assert f"--promote {version}" in run("serve", "--home", str(tmp_path), "--port", "0").sentence


def test_a_process_that_shares_no_disk_with_the_night_says_what_it_needs_to_begin(run: Run, tmp_path: Path):
    night, pod, url = tmp_path / "night", tmp_path / "pod", f"file://{tmp_path}/store"
    for verb in (["serve", "--port", "0"], ["updater"]):
        verb += ["--home", str(pod)]
        assert f"no bundle is published in {url}" in run(*verb, DAT_BUNDLES=url).sentence
    open_bundles(night, url).publish(tiny_bundle())
    assert f"{pod} has no online store" in run("serve", "--port", "0", "--home", str(pod), DAT_BUNDLES=url).sentence
    for wrong, why in (("ftp://shop/dat", "begins with one of s3://"), ("s3://key:secret@shop/dat", "has no place in")):
        assert why in run("bundles", "--home", str(pod), DAT_BUNDLES=wrong).sentence


def test_compare_shows_metrics_and_parts_side_by_side(run: Run, tmp_path: Path):
    shelf = BundleStore(tmp_path / "bundles")
    first = tiny_bundle()
    parts = {"new queries": {"clicks": 7, "live_hr100": 0.25}, "seen 0": {"clicks": 0, "live_hr100": 0.0}}
    metrics = {"static_clicks": 9.0, "live_hr100": 0.5}
    one = first.manifest.model_copy(update={"version": "one", "metrics": metrics, "parts": parts})
    better = {"new queries": {"clicks": 8, "live_hr100": 0.375}}
    config = one.config.model_copy(update={"epochs": 77})
    update = {"version": "two", "metrics": metrics | {"live_hr100": 0.625}, "parts": better, "config": config}
    two = one.model_copy(update=update)
    for manifest in (one, two):
        shelf.publish(dataclasses.replace(first, manifest=manifest))
    shown = run("bundles", "--home", str(tmp_path), "--compare", "one", "two", COLUMNS="120").out
    rows = [" ".join(line.replace("│", " ").split()) for line in shown.splitlines()]
    assert "live HR@100 0.500 0.625 +0.125" in rows and "live HR@100 0.250 0.375 +0.125" in rows
    assert "new queries clicks 7 8" in rows and "seen 0" not in shown
    assert f"model.epochs {first.manifest.config.epochs} 77" in rows
    assert "no bundle three" in run("bundles", "--home", str(tmp_path), "--compare", "one", "three").sentence
