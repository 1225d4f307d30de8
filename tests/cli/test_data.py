"""``dat data``: what is in a log is shown before anything runs on it, and a first card is written for its files."""

import json
from pathlib import Path

import pytest

from feature_repo.card import load_card
from tests.cli.conftest import Run
from tests.feature_repo.formats import GROUPS, ROWS, Format, csv
from tests.market import write_market

KEYS = {"rows_read", "rows", "queries", "items", "first", "last", "dropped", "duplicates", "problems"}


def test_check_shows_a_log_and_its_catalogues_and_writes_the_same_as_json(run: Run, tmp_path: Path):
    card = write_market(tmp_path)
    clicks = tmp_path / "market" / "clicks.csv"
    clicks.write_text(clicks.read_text() + "NULL,s1,1700006500000\nu1,nowhere,1700006500000\nu1,s1,noon\n")
    shown = run("data", "check", card, "--json", tmp_path / "report.json", COLUMNS="200")
    assert shown.status == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert report.keys() >= KEYS
    assert report["dropped"] == {"query id missing": 1, "time unreadable": 1} and report["unknown_items"] == 1
    assert report["rows_read"] == 3_003 == report["rows"] + report["duplicates"] + 2
    assert report["catalogues"]["item"]["rows"] == 150
    for said in (
        "1 query id missing",
        "1 time unreadable",
        "2023-11-17",
        "The first rows",
        "1 clicks are on items that",
    ):
        assert said in shown.out


def test_check_refuses_a_log_in_one_sentence(run: Run, tmp_path: Path):
    refused = next(form for form in GROUPS["Refused"] if form.name == "milliseconds said to be seconds")
    assert 'time_unit = "ms" they would lie from 2023-11-15' in run("data", "check", refused.bring(tmp_path)).sentence


@pytest.mark.parametrize(
    ("form", "lines"),
    [
        (Format("tabs", csv("\t", time=str, unit="ms")), ['separator = "\\t"', 'time_unit = "ms"']),
        (
            Format("no header", csv(";", header=False)),
            ['header = ["column_1", "column_2", "column_3"]', 'separator = ";"'],
        ),
        (Format("dates", csv(time=lambda at: f"2023-11-{15 + at % 9}", unit="date")), ['time_unit = "date"']),
        (Format("gzip", csv()), ['query = "user"', 'item = "item"', 'time = "ts"', 'time_unit = "s"']),
    ],
    ids=lambda value: value.name if isinstance(value, Format) else "",
)
def test_init_writes_a_card_that_reads_the_files_and_says_what_it_guessed(
    run: Run, form: Format, lines, tmp_path: Path
):
    form.bring(tmp_path / "shop")
    (tmp_path / "shop" / "goods.csv").write_text(
        "item,dept,eur\n" + "".join(f"i{n},d{n % 3},{n}.5\n" for n in range(11))
    )
    card = tmp_path / "shop" / "guessed.toml"
    written = run("data", "init", tmp_path / "shop" / "log.csv", tmp_path / "shop" / "goods.csv", "--out", card)
    assert written.status == 0 and "log.csv has the clicks: query = " in written.out
    text = card.read_text()
    assert all(line in text for line in lines)
    assert load_card(card).item.category == "dept" or "header" in text
    checked = run("data", "check", card, "--json", tmp_path / "report.json")
    assert checked.status == 0 and json.loads((tmp_path / "report.json").read_text())["rows"] == len(ROWS)
    assert f"{card} exists" in run("data", "init", card, "--out", card).sentence


def test_init_says_so_where_nothing_could_be_a_click(run: Run, tmp_path: Path):
    (tmp_path / "x.csv").write_text("one\n1\n2\n")
    assert (
        "could be a query and an item" in run("data", "init", tmp_path / "x.csv", "--out", tmp_path / "c.toml").sentence
    )
