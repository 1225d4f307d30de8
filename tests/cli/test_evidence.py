"""Results say where they come from."""

import json
import sys
from pathlib import Path

import pytest

from cli.evidence import write_evidence


def test_a_command_is_told_without_folders_of_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    out, elsewhere = Path.cwd() / "build" / "runs", tmp_path / "x.json"
    given = ["evaluate", "--data", "shop", "--out", str(out), f"--json={elsewhere}", "--url", "http://127.0.0.1:1/a"]
    monkeypatch.setattr(sys, "argv", ["dat", *given])
    monkeypatch.setenv("DAT_NIGHT__MODEL__EPOCHS", "3")
    write_evidence(elsewhere, {"hr": 0.5})
    written = json.loads(elsewhere.read_text())
    assert written["hr"] == 0.5
    assert written["provenance"]["command"] == (
        "DAT_NIGHT__MODEL__EPOCHS=3 dat evaluate --data shop --out build/runs --json=x.json --url http://127.0.0.1:1/a"
    )
