"""What the documents say is so: their tables are the evidence's, and their links lead somewhere."""

import re
from pathlib import Path

import pytest

from docs.tables import DOCUMENTS, rendered

LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)(?:#[^)]*)?\)")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_the_tables_are_those_of_the_evidence(document: Path):
    assert document.read_text() == rendered(document.read_text()), "python -m docs.tables writes them"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_leads_to_a_file(document: Path):
    links = [link for link in LINK.findall(document.read_text()) if "://" not in link and not link.startswith("#")]
    assert [link for link in links if not (document.parent / link).exists()] == []


def test_a_table_that_differs_from_its_evidence_is_noticed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("docs.tables.TABLES", {"one": lambda: "| a |\n|---|\n| 1 |\n"})
    text = "before\n<!-- table: one -->\n| a |\n|---|\n| 2 |\n<!-- end -->\nafter\n"
    fresh = rendered(text)
    assert fresh != text and "| 1 |" in fresh and fresh == rendered(fresh)
    assert fresh.startswith("before\n") and fresh.endswith("\nafter\n")


def test_evidence_names_its_origin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from cli.evidence import write_evidence
    from docs.tables import _load

    monkeypatch.setattr("sys.argv", ["/somewhere/cli/__main__.py", "evaluate", "--json", f"{Path.cwd()}/out.json"])
    monkeypatch.setenv("DAT_NIGHT__MODEL__EPOCHS", "3")
    write_evidence(tmp_path / "one.json", {"results": {}})
    made = _load(tmp_path / "one.json")["provenance"]
    assert made["command"] == "DAT_NIGHT__MODEL__EPOCHS=3 dat evaluate --json out.json" and made["cores"] >= 1
    (tmp_path / "two.json").write_text("{}")
    with pytest.raises(ValueError, match=r"two\.json does not say its .*command"):
        _load(tmp_path / "two.json")
