"""The small logs of the development folder, each with what is right; those with a truth.json to the letter."""

import csv
import json
from pathlib import Path

import pytest

from feature_repo.card import CardError, load_card
from feature_repo.reader.catalogue import load_catalogue
from feature_repo.reader.clicks import read_clicks
from feature_repo.reader.dataset import check_dataset

CASES = Path(__file__).parents[3] / "shared" / "cases" / "logs"
NAMES = sorted(path.parent.name for path in CASES.glob("*/card.toml"))
DROPPED = {
    "date_one_bad": {"time unreadable": 1},
    "half_percent_empty_time": {"time missing": 3},
    "null_sentinels": {"query id missing": 225},
    "one_future": {"time out of range": 1},
    "ragged_extra": {"malformed line": 15},
}
ROWS = {"dup_rows_by_date": 657, "newline_injected": 3_000}
SIDES = {"latin1": (30, 2), "null_sentinels": (31, 39)}
REFUSED = {"ms_said_s": 'the year 55,841.*time_unit = "ms"', "pq_list_items": "BIGINT.*unnest"}
pytestmark = pytest.mark.skipif(not NAMES, reason=f"there are no cases at {CASES}")


@pytest.mark.long
@pytest.mark.shared_data
@pytest.mark.parametrize("name", NAMES)
def test_a_case_is_read_as_its_truth_says(name: str):
    card = load_card(CASES / name / "card.toml")
    folder = Path(card.folder)
    if name in REFUSED:
        with pytest.raises(CardError, match=REFUSED[name]):
            check_dataset(card, folder, 0.01)
        return
    report = check_dataset(card, folder, 0.01)
    clicks = read_clicks(card, folder).to_pydict()
    found = {key: getattr(report, key) for key in ("rows_read", "rows", "queries", "items", "dropped")}
    if (CASES / name / "truth.json").exists():
        truth = json.loads((CASES / name / "truth.json").read_text())
        assert found == {key: truth[key] for key in found}
        assert truth["item"] in clicks["item_id"]
        assert truth["query"] in clicks["query_id"] or name == "format_goodreads_json"  # its ids are hexadecimal
    else:
        dropped = DROPPED.get(name, {})
        queries, items = SIDES.get(name, (30, 39))
        rows = ROWS.get(name, 600)
        kept = rows - sum(dropped.values())
        assert found == {"rows_read": rows, "rows": kept, "queries": queries, "items": items, "dropped": dropped}
    counted = (len(clicks["query_id"]), len(set(clicks["query_id"])), len(set(clicks["item_id"])))
    assert counted == (report.rows, report.queries, report.items)


@pytest.mark.shared_data
@pytest.mark.parametrize("name", ["quotes_before_item", "doubled_quotes", "newline_injected"])
def test_quoted_text_is_what_pythons_csv_reads(name: str):
    card = load_card(CASES / name / "card.toml")
    clicks = read_clicks(card, Path(card.folder)).to_pylist()
    with (Path(card.folder) / "clicks.csv").open(newline="") as file:
        rows = [(row["user"], row["item"], int(row["ts"]) * 1000) for row in csv.DictReader(file)]
    assert sorted((click["query_id"], click["item_id"], click["event_time"]) for click in clicks) == sorted(rows)


@pytest.mark.shared_data
def test_catalogues_have_what_their_files_have():
    rows = {}
    for name in ("cat_newline_in_title", "cat_price_one_na", "cat_parquet_lists_decimals"):
        card = load_card(CASES / name / "card.toml")
        rows[name] = load_catalogue(card, Path(card.folder), "item")
    quoted = rows["cat_newline_in_title"].rows.to_pylist()
    with (CASES / "cat_newline_in_title" / "log" / "items.csv").open(newline="") as file:
        assert [item["title"] for item in quoted] == [row["title"] for row in csv.DictReader(file)]
    assert rows["cat_price_one_na"].report.unknown == {"price": 1}
    assert rows["cat_price_one_na"].rows["price"].null_count == 1
    listed = rows["cat_parquet_lists_decimals"].rows.to_pylist()
    assert listed[0] == {"id": "0", "dept": ["a", "b"], "price": 1.5, "title": "x"}
