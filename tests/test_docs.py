"""What the documents say is so: their tables are the evidence's, and their links lead somewhere."""

import re
import shlex
import tomllib
from pathlib import Path

import pytest
from typer.main import get_command

from cli.main import build
from docs.tables import DOCUMENTS, rendered
from feature_repo.card import load_card
from feature_repo.reader.dataset import check_dataset
from model.settings.settings import load_settings
from tests.runnable import by_page
from tests.shop import write_shop

FILES = by_page(lambda block: block.language == "toml")
COMMAND = re.compile(r"(?:^ *|`)(?:\./)?dat ([a-z-]+[^`\n#…|]*)", re.M)
LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)(?:#[^)]*)?\)")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_the_tables_are_those_of_the_evidence(document: Path):
    assert document.read_text() == rendered(document.read_text()), "python -m docs.tables writes them"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_leads_to_a_file(document: Path):
    links = [link for link in LINK.findall(document.read_text()) if "://" not in link and not link.startswith("#")]
    assert [link for link in links if not (document.parent / link).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_command_has_a_verb_and_options_that_there_are(document: Path):
    measured_then = re.compile(r"<small>.*")  # may be of an earlier version
    unknown = []
    for line in COMMAND.findall(measured_then.sub("", document.read_text())):
        command, words = get_command(build()), shlex.split(line)
        while words and (verb := getattr(command, "commands", {}).get(words[0])):
            command, words = verb, words[1:]
        options = {name for option in command.params for name in (*option.opts, *option.secondary_opts)} | {"--help"}
        if hasattr(command, "commands") and words and words[0] != "--help":
            unknown.append(line)
        elif not command.context_settings.get("ignore_unknown_options"):  # bench and test hand theirs on
            unknown += [f"{line}: {word}" for word in words if word.startswith("--") and word not in options]
    assert unknown == []


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


@pytest.mark.parametrize("page", FILES)
def test_each_runnable_card_of_a_page_reads_its_log_and_each_runnable_setting_is_taken(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    write_shop(tmp_path)
    for block in FILES[page]:
        if block.is_card:
            Path("card.toml").write_text(block.code)
            card = load_card("card.toml")
            report = check_dataset(card, Path(card.folder), 0.01)
            assert report.rows == report.rows_read > 1_000 and not report.unknown_items
            assert all(catalogue.rows and not catalogue.unknown for catalogue in report.catalogues.values())
        else:
            Path("dat.toml").write_text(block.code)
            assert load_settings().model_fields_set >= set(tomllib.loads(block.code))
