"""A first card for files as strangers have them: it reads what is in them, and says what it took for what."""

import csv
import gzip
import json
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_repo.card import CardError, load_card
from feature_repo.reader.clicks import read_clicks
from feature_repo.reader.dataset import check_dataset
from feature_repo.reader.guess import Guess, guess
from tests.feature_repo.formats import ROWS, Row, zipped
from tests.feature_repo.test_gallery import SAMPLES


def card_of(folder: Path, *files: str) -> tuple[Path, Guess]:
    found = guess([folder / name for name in files], folder, "guessed")
    (folder / "card.toml").write_text(found.text)
    return folder / "card.toml", found


def rows_of(path: Path) -> list[Row]:
    card = load_card(path)
    clicks = read_clicks(card, Path(card.folder)).select(["query_id", "item_id", "event_time"]).to_pydict()
    return sorted(zip(*clicks.values(), strict=True))


def test_semicolons_decimal_commas_windows_text_and_german_names(tmp_path):
    """The item is the column whose values tell the catalogue's rows apart, whatever it is called."""
    lines = ["Kunde;Artikel;Datum;Preis €;Bemerkung"]
    for n, (query, item, at) in enumerate(ROWS):
        lines.append(
            f'{query};{item};{datetime.fromtimestamp(at / 1000, UTC):%d.%m.%Y %H:%M:%S};1.0{n:02},50;"so; ""ü"""'
        )
    (tmp_path / "bestellt.csv").write_bytes("\r\n".join(lines).encode("cp1252"))
    goods = [f'i{n};"Müsli; Nr {n}";{n % 3};{n},25' for n in range(11)]
    (tmp_path / "waren.csv").write_text("\n".join(["Nummer;Name;Gruppe;Preis", *goods]), "utf-8-sig")
    path, found = card_of(tmp_path, "bestellt.csv", "waren.csv")
    card = load_card(path)
    assert (card.clicks.query, card.clicks.item, card.clicks.time) == ("Kunde", "Artikel", "Datum")
    assert card.clicks.time_unit == "%d.%m.%Y %H:%M:%S" and rows_of(path) == sorted(ROWS)
    assert card.item.table.id == "Nummer" and card.item.features["Preis"].kind == "number"
    report = check_dataset(card, tmp_path, 0)
    assert report.unknown_items == 0 and report.catalogues["item"].unreadable == {}
    assert sum("Windows-1252" in line for line in found.said) == 1
    assert any("decimal commas in Preis" in line for line in found.said)


def test_one_json_document_of_sessions_of_events(tmp_path):
    sessions = [
        {"sid": f"s{n}", "user": {"id": query}, "events": [{"product": {"id": item, "tags": ["a"]}, "us": at * 1000}]}
        for n, (query, item, at) in enumerate(ROWS)
    ]
    (tmp_path / "export 1.json").write_text(json.dumps({"meta": {"version": 3}, "sessions": sessions}, indent=1))
    path, found = card_of(tmp_path, "export 1.json")
    assert rows_of(path) == sorted(ROWS)
    assert any("holds lists of objects" in line for line in found.said)


def test_json_lines_with_objects_and_without(tmp_path):
    for name, lines in {
        "flat": [{"user": query, "item": item, "ts": at} for query, item, at in ROWS],
        "deep": [{"user": {"id": query}, "item": {"id": item}, "ts": at} for query, item, at in ROWS],
    }.items():
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, lines)))
        path, _ = card_of(tmp_path, f"{name}.jsonl")
        assert rows_of(path) == sorted(ROWS)
        assert bool(load_card(path).clicks.sql) == (name == "deep")


def test_comments_before_the_header_and_words_for_dates(tmp_path):
    lines = ["# of our tracker", "# zone: UTC", "When\tWho\tWhat"]
    lines += [f"{datetime.fromtimestamp(at / 1000, UTC):%b %d, %Y, %I:%M:%S %p}\t{q}\t{i}" for q, i, at in ROWS]
    (tmp_path / "log.txt").write_text("\n".join(lines))
    path, found = card_of(tmp_path, "log.txt")
    assert rows_of(path) == sorted(ROWS) and load_card(path).clicks.skip == 2
    assert any("2 line(s) before the header" in line for line in found.said)


def test_numbers_with_fractions_and_values_of_one_row_are_no_ids(tmp_path):
    lines = ["a,b,c,d", *(f"{n * 1.5},row{n},x{n % 5},y{n % 7}" for n in range(100))]
    (tmp_path / "log.csv").write_text("\n".join(lines))
    card = load_card(card_of(tmp_path, "log.csv")[0])
    assert {card.clicks.query, card.clicks.item} == {"c", "d"} and card.clicks.time_unit == "order"


def test_what_cannot_be_guessed_is_refused_in_a_sentence(tmp_path):
    (tmp_path / "log.json").write_text(json.dumps({"meta": {"version": 3}, "names": ["a", "b"]}))
    with pytest.raises(CardError, match="could be a query and an item"):
        card_of(tmp_path, "log.json")
    (tmp_path / "log.xlsx").write_bytes(zipped({"[Content_Types].xml": b"<Types/>", "xl/workbook.xml": b"<w/>"}))
    with pytest.raises(CardError, match="an Excel sheet, which cannot be read; save it as CSV"):
        card_of(tmp_path, "log.xlsx")
    with pytest.raises(CardError, match="there is no .*nowhere.csv; give the paths"):
        card_of(tmp_path, "nowhere.csv")


CLICKS = [(f"p{n % 7}", f"sku-{n % 11}", datetime(2026, 9, 1 + n % 9, n % 24, tzinfo=UTC)) for n in range(60)]
EXPECTED = sorted({(query, item, round(at.timestamp() * 1000)) for query, item, at in CLICKS})


def write_csv(path: Path, rows: list[dict], separator: str = ",") -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=separator, quoting=csv.QUOTE_ALL)
        writer.writeheader()
        writer.writerows(rows)


def test_a_name_counts_by_its_words_and_half_empty_columns_come_last(tmp_path):
    """``Paid at`` holds no ``aid``: of a shop's export the item is the line's SKU, and the time that every line has."""
    rows = [
        {"Name": f"#{n // 2}", "Email": q, "Paid at": "" if n % 2 else str(t), "Created at": str(t), "Currency": "EUR",
         "Lineitem quantity": 1, "Lineitem name": f"Shirt, {i}", "Lineitem sku": i, "Id": "" if n % 2 else 5_000 + n}
        for n, (q, i, t) in enumerate(CLICKS)
    ]  # fmt: skip
    write_csv(tmp_path / "orders.csv", rows)
    path, _ = card_of(tmp_path, "orders.csv")
    clicks = load_card(path).clicks
    assert (clicks.query, clicks.item, clicks.time) == ("Email", "Lineitem sku", "Created at")
    assert rows_of(path) == EXPECTED


def test_of_several_lists_of_objects_the_one_with_items_is_followed_and_the_finest_time_is_taken(tmp_path):
    events = [
        {"event_date": f"{t:%Y%m%d}", "event_timestamp": str(round(t.timestamp() * 1e6)), "event_name": "view_item",
         "event_params": [{"key": "page", "value": {"int_value": str(n)}}, {"key": "ga", "value": {"int_value": "1"}}],
         "user_id": None if n % 3 else q, "user_pseudo_id": q, "device": {"category": "mobile"},
         "items": [{"item_id": i, "item_name": f"Thing {i}", "price": n % 9 + 0.5}]}
        for n, (q, i, t) in enumerate(CLICKS)
    ]  # fmt: skip
    (tmp_path / "ga.jsonl").write_text("\n".join(map(json.dumps, events)))
    path, _ = card_of(tmp_path, "ga.jsonl")
    card = load_card(path)
    assert rows_of(path) == EXPECTED and card.clicks.time_unit == "us"
    assert (card.clicks.event_type, card.clicks.value) == ("event_type", "value")


def test_a_column_of_lists_of_items_becomes_a_row_of_each(tmp_path):
    baskets = pa.table({
        "member_no": [q for q, _, _ in CLICKS], "store": [f"st{n % 3}" for n in range(60)],
        "basket": [[i, "sku-99"] for _, i, _ in CLICKS],
        "at": pa.array([t for _, _, t in CLICKS], pa.timestamp("us", "UTC")),
    })  # fmt: skip
    pq.write_table(baskets, tmp_path / "baskets.parquet")
    path, _ = card_of(tmp_path, "baskets.parquet")
    both = {*EXPECTED, *((query, "sku-99", at) for query, _, at in EXPECTED)}
    assert set(rows_of(path)) == both


def test_files_of_the_same_columns_are_one_log_in_whatever_order_and_packing(tmp_path):
    for n, order in enumerate((["visitor", "sku", "ts"], ["ts", "note", "sku", "visitor"])):
        rows = [{"visitor": q, "sku": i, "ts": t.isoformat(), "note": "x"} for q, i, t in CLICKS[n::2]]
        write_csv(tmp_path / "part.csv", [{key: row[key] for key in order} for row in rows])
        (tmp_path / f"part{n}.zip").write_bytes(zipped({"part.csv": (tmp_path / "part.csv").read_bytes()}))
    path, found = card_of(tmp_path, "part0.zip", "part1.zip")
    card = load_card(path)
    assert rows_of(path) == EXPECTED and card.item.table is None
    assert any("part0.zip, part1.zip have the clicks" in line for line in found.said)


def test_a_date_and_a_time_of_the_day_in_two_columns_are_one_moment(tmp_path):
    """As Excel writes it for much of Europe: with a line for the separator, in UTF-16."""
    lines = ["sep=;", "Kunde;Artikel;Datum;Uhrzeit;Preis"]
    lines += [f"{q};{i};{t:%d.%m.%Y};{t:%H:%M:%S};1.200,5" for q, i, t in CLICKS]
    (tmp_path / "verkauf.csv").write_text("\n".join(lines), "utf-16")
    path, found = card_of(tmp_path, "verkauf.csv")
    assert rows_of(path) == EXPECTED
    report = check_dataset(load_card(path), tmp_path, 0)
    assert report.corrected == {} and any("Datum and Uhrzeit" in line for line in found.said)


def test_without_names_the_query_comes_before_the_item_and_few_grades_are_a_value(tmp_path):
    """Whichever has more different values."""
    lines = [f"{n % 13}::{n % 41}::{n % 10 / 2 + 0.5}::{1_788_220_800 + n}" for n in range(300)]
    (tmp_path / "ratings.dat").write_text("\n".join(lines))
    path, found = card_of(tmp_path, "ratings.dat")
    clicks = load_card(path).clicks
    assert (clicks.query, clicks.item, clicks.time, clicks.value) == ("column_1", "column_2", "column_4", "column_3")
    assert any("`at_least`" in line for line in found.said)


def test_an_address_of_a_browser_is_no_user_and_a_row_of_its_own_no_session(tmp_path):
    rows = [
        {"": n, "session_id": f"s{n}", "user_agent": "Mozilla", "cookie": q, "url": f"/p/{i}", "time": t.isoformat()}
        for n, (q, i, t) in enumerate(CLICKS)
    ]  # fmt: skip
    write_csv(tmp_path / "access.tsv", rows, "\t")
    path, _ = card_of(tmp_path, "access.tsv")
    assert rows_of(path) == sorted((query, f"/p/{item}", at) for query, item, at in EXPECTED)


def test_a_catalogue_is_of_the_side_whose_ids_it_has(tmp_path):
    write_csv(tmp_path / "clicks.csv", [{"user_id": q, "item_id": i, "ts": t.isoformat()} for q, i, t in CLICKS])
    people = [{"name": f"Name {n}", "id": f"p{n}", "city_id": n % 3} for n in range(7)]
    (tmp_path / "people.jsonl").write_text("\n".join(json.dumps(one | {"home": {"floor": 3}}) for one in people))
    card = load_card(card_of(tmp_path, "clicks.csv", "people.jsonl")[0])
    assert card.query.table.id == "id" and card.item.table is None
    assert card.query.features["city_id"].kind == "category"
    report = check_dataset(card, tmp_path, 0)
    assert report.catalogues["query"].rows == 7 and not any("ids" in problem for problem in report.problems)


PLAIN = ("retailrocket", "hm", "amazon-2023", "movielens-1m", "movielens-25m", "yelp", "goodreads", "otto")


@pytest.mark.long
@pytest.mark.parametrize("name", PLAIN)
def test_a_public_log_gets_the_clicks_that_its_card_in_the_gallery_has(name: str, tmp_path: Path):
    sample = SAMPLES[name]
    for file, text in sample.files.items():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_bytes(gzip.compress(text.encode()) if file.endswith(".gz") else text.encode())
    path, _ = card_of(tmp_path, *sample.files)
    card = load_card(path)
    assert set(rows_of(path)) >= set(sample.clicks)
    assert card.item.table is None or check_dataset(card, tmp_path, 1).catalogues["item"].rows


def test_lines_before_the_header_and_names_that_come_twice_do_not_hide_the_columns(tmp_path):
    lines = ["Sales, by week", "", "made on Monday", "member;product;at"]
    lines += [f"{q};{i};{t:%Y-%m-%d %H:%M}" for q, i, t in CLICKS]
    (tmp_path / "report.csv").write_text("\n".join(lines))
    path, _ = card_of(tmp_path, "report.csv")
    assert load_card(path).clicks.skip == 3 and rows_of(path) == EXPECTED
    (tmp_path / "same.csv").write_text("".join(f"{n % 12},{n % 12},{1_788_220_800 + n},1\n" for n in range(100)))
    assert load_card(card_of(tmp_path, "same.csv")[0]).clicks.header == [f"column_{n}" for n in (1, 2, 3, 4)]


def test_what_begins_as_json_and_is_none_is_refused_in_a_sentence(tmp_path):
    (tmp_path / "log.json").write_text("{u'user': 1, u'item': 2}\n{u'user': 1, u'item': 3}\n")
    with pytest.raises(CardError, match="begins as JSON does, and is none: .* JSON lines or CSV"):
        card_of(tmp_path, "log.json")
