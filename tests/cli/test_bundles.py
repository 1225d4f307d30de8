"""Rolling back is one command."""

import dataclasses
from datetime import timedelta
from pathlib import Path

from tests.cli.test_errors import run, sentence
from tests.tiny import tiny_bundle
from training.bundle import Shelf


def test_roll_back_and_promote(tmp_path: Path):
    shelf = Shelf(tmp_path / "bundles")
    first = tiny_bundle()
    later = first.manifest.model_copy(
        update={"version": "second", "created": first.manifest.created + timedelta(days=1)}
    )
    shelf.publish(first)
    shelf.publish(dataclasses.replace(first, manifest=later))
    assert shelf.current() == "second"
    assert run("bundles", "--home", str(tmp_path), "--rollback").returncode == 0
    assert shelf.current() == first.version
    assert "no bundle before" in sentence(run("bundles", "--home", str(tmp_path), "--rollback"))
    listed = run("bundles", "--home", str(tmp_path), "--promote", "second")
    assert shelf.current() == "second" and first.version in listed.stdout
    assert "no bundle nonsense" in sentence(run("bundles", "--home", str(tmp_path), "--promote", "nonsense"))
