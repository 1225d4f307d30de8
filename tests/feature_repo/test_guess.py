"""A first card for files as strangers have them: it reads what is in them, and says what it took for what."""

import csv
import gzip
import json
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path

import pyarrow as pa
import pyarrow.orc
import pyarrow.parquet as pq
import pytest

from feature_repo.card import CardError, load_card
from feature_repo.reader.catalogue import read_catalogue
from feature_repo.reader.clicks import read_clicks
from feature_repo.reader.dataset import check_dataset
from feature_repo.reader.guess import Guess, guess
from tests.feature_repo.formats import ROWS, Row, zipped
from tests.feature_repo.test_gallery import SAMPLES

pytestmark = pytest.mark.long


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


@pytest.mark.parametrize(
    ("form", "zoneless"),
    [("%d.%m.%Y %H:%M", True), ("%Y-%m-%d %H:%M:%S", True), ("%Y-%m-%dT%H:%M:%SZ", False), ("%d.%m.%Y", False),
     ("%Y-%m-%d", False), ("%s", False)],
)  # fmt: skip
def test_times_of_a_clock_whose_zone_nobody_says_are_said_to_be_read_as_utc(tmp_path, form: str, zoneless: bool):
    lines = [f"{query},{item},{datetime.fromtimestamp(at / 1000, UTC):{form}}" for query, item, at in ROWS]
    (tmp_path / "log.csv").write_text("\n".join(["user,item,ts", *lines]))
    _, found = card_of(tmp_path, "log.csv")
    assert any("ts has no zone and is read as UTC" in line for line in found.said) == zoneless


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


def test_a_table_with_a_column_for_each_item_is_told_with_the_sql_that_reads_it(tmp_path):
    """30 people by 40 films, a third of them rated: no film is taken for the item of all clicks."""
    given = {(f"u{n}", f"film {m}") for n in range(30) for m in range(40) if (7 * n + m) % 3 == 0}
    lines = ["person," + ",".join(f"film {m}" for m in range(40))]
    lines += [f"u{n}," + ",".join("4" if (f"u{n}", f"film {m}") in given else "" for m in range(40)) for n in range(30)]
    (tmp_path / "wide.csv").write_text("\n".join(lines))
    with pytest.raises(CardError, match="40 columns of numbers, as a table with a column for each item") as refused:
        card_of(tmp_path, "wide.csv")
    sql = str(refused.value).split("rows of it: ")[1]
    (tmp_path / "card.toml").write_text(
        f"name = 'm'\ntitle = 'm'\nfolder = ''\n[clicks]\ntables.wide = {{ path = 'wide.csv' }}\n"
        f"time_unit = 'order'\nsql = '''{sql}'''\n"
    )
    assert {(query, item) for query, item, _ in rows_of(tmp_path / "card.toml")} == given


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


def test_a_date_and_the_number_of_its_hour_are_one_moment_in_two_columns_or_in_one(tmp_path):
    """As tables by day and hour have it, and logs of advertisements: ``14102100``."""
    rows = [{"user_id": q, "item_id": i, "dt": f"{t:%Y-%m-%d}", "hour": t.hour} for q, i, t in CLICKS]
    write_csv(tmp_path / "hours.csv", rows)
    typed = pa.Table.from_pylist([row | {"dt": date.fromisoformat(row["dt"])} for row in rows])
    pq.write_table(typed, tmp_path / "h.parquet")
    write_csv(tmp_path / "ads.csv", [{"device_id": q, "ad_id": i, "hour": f"{t:%y%m%d%H}"} for q, i, t in CLICKS])
    for name in ("hours.csv", "h.parquet", "ads.csv"):
        assert rows_of(card_of(tmp_path, name)[0]) == EXPECTED, name


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


def test_a_folder_is_read_whole_and_what_else_lies_in_it_is_a_catalogue(tmp_path):
    (tmp_path / "log").mkdir()
    for n in range(1, 6):
        rows = [{"user": q, "item": i, "ts": t.isoformat()} for q, i, t in CLICKS[n - 1 :: 5]]
        write_csv(tmp_path / "log" / f"{n:02}.csv", [row | ({"channel": "web"} if n > 3 else {}) for row in rows])
    (tmp_path / "log" / "00.csv").touch()
    (tmp_path / "log" / "99.csv").write_text("user,item,ts\n")
    assert rows_of(card_of(tmp_path, "log")[0]) == EXPECTED
    write_csv(tmp_path / "log" / "goods.csv", [{"item": f"sku-{n}", "title": f"Thing {n}"} for n in range(11)])
    path, _ = card_of(tmp_path, "log")
    assert rows_of(path) == EXPECTED and load_card(path).item.table.paths == ["log/goods.csv"]


def test_objects_inside_parquet_and_orc_are_flattened_and_rows_without_an_item_are_told(tmp_path):
    rows = [{"user": {"id": q}, "items": [{"sku": i}] if n else [], "at": t} for n, (q, i, t) in enumerate(CLICKS)]
    expected = sorted({(q, i, round(t.timestamp() * 1000)) for q, i, t in CLICKS[1:]})
    for name, save in {"log.parquet": pq.write_table, "log.orc": pyarrow.orc.write_table}.items():
        save(pa.Table.from_pylist(rows), tmp_path / name)
        path, found = card_of(tmp_path, name)
        assert rows_of(path) == expected
        assert any("1 of 60 rows have nothing in" in line for line in found.said)


def test_the_format_is_the_one_by_which_a_log_is_short(tmp_path):
    """No day is above 12: both 03/09 could be the month."""
    for form in ("%d/%m/%Y %H:%M", "%m/%d/%Y %H:%M"):
        write_csv(tmp_path / "log.csv", [{"user": q, "item": i, "on": f"{t:{form}}"} for q, i, t in CLICKS])
        path, found = card_of(tmp_path, "log.csv")
        assert rows_of(path) == EXPECTED and any("could also be" in line for line in found.said)


def test_times_that_are_in_no_known_unit_are_told_with_one_of_them_also_in_the_card(tmp_path):
    """BST is London's summer time and Bangladesh's, and would be read six hours off."""
    for form, says in (
        ("%Y-%m-%d %H:%M BST", "BST is the name of several zones. Let `sql` say the offset, as in replace("),
        ("%a %b %d %H:%M:%S EDT %Y", "EDT stands elsewhere than at the end"),
        ("week %W", "say it as a format"),
    ):
        write_csv(tmp_path / "log.csv", [{"user": q, "item": i, "time": t.strftime(form)} for q, i, t in CLICKS])
        path, found = card_of(tmp_path, "log.csv")
        assert any("the times of time, such as" in line and says in line for line in found.said)
        assert "are not read, such as" in path.read_text() and load_card(path).clicks.time_unit == "order"


@pytest.mark.parametrize(("word", "hours"), [("EDT", -4), ("CET", 1), ("UTC", 0)])
def test_a_word_that_is_one_zones_alone_is_read(word: str, hours: int, tmp_path: Path):
    local = timezone(timedelta(hours=hours))
    for form in ("%Y-%m-%d %H:%M", "%Y-%m-%d %H:%M:%S", "%a, %d %b %Y %H:%M:%S"):
        lines = [{"user": q, "item": i, "time": f"{t.astimezone(local):{form}} {word}"} for q, i, t in CLICKS]
        write_csv(tmp_path / "log.csv", lines)
        path, _ = card_of(tmp_path, "log.csv")
        assert rows_of(path) == EXPECTED and load_card(path).clicks.time_unit == "date"


def test_the_days_of_a_spreadsheet_are_what_its_clock_showed(tmp_path):
    days = [(t - datetime(1899, 12, 30, tzinfo=UTC)) / timedelta(days=1) for _, _, t in CLICKS]
    rows = [{"user": q, "item": i, "date": day} for (q, i, _), day in zip(CLICKS, days, strict=True)]
    write_csv(tmp_path / "log.csv", rows)
    path, found = card_of(tmp_path, "log.csv")
    assert load_card(path).clicks.time_unit == "excel" and rows_of(path) == EXPECTED
    assert any("date is taken for excel: a sample lies from 2026-" in line for line in found.said)
    path.write_text('timezone = "Europe/Oslo"\n' + path.read_text())
    assert rows_of(path) == [(q, i, ms - 7_200_000) for q, i, ms in EXPECTED]
    write_csv(tmp_path / "log.csv", [{"user": q, "item": i, "stock": 45_000 + n} for n, (q, i, _) in enumerate(CLICKS)])
    assert load_card(card_of(tmp_path, "log.csv")[0]).clicks.time_unit == "order", "counts are no days"


@pytest.mark.parametrize(
    ("month", "form", "says"),
    [
        ("März", "%d. {} %Y %H:%M", "'März', 'March') AS time, and say time_unit = \"%d. %B %Y %H:%M\""),
        ("févr.", "%d {} %Y", "'févr.', 'February') AS time, and say time_unit = \"%d %B %Y\""),
        ("septiembre", "%d de {} de %Y", "'September') AS time, and say time_unit = \"%d de %B de %Y\""),
    ],
)
def test_months_in_other_words_are_told_with_the_sql_that_reads_them(month, form, says, tmp_path):
    lines = [{"user": q, "item": i, "Datum": t.strftime(form.format(month))} for q, i, t in CLICKS]
    write_csv(tmp_path / "log.csv", lines)
    path, found = card_of(tmp_path, "log.csv")
    assert load_card(path).clicks.time_unit == "order"
    assert any("months are words that are not English" in line and says in line for line in found.said)


def test_orders_beside_their_products_are_told_with_the_join_that_follows_people(tmp_path):
    """As Instacart has them, but with times."""
    orders, lines = [], []
    for n, (query, item, at) in enumerate(CLICKS):
        orders.append({"order_id": 900 + n, "user_id": query, "at": f"{at:%Y-%m-%d %H:%M}"})
        lines += [{"order_id": 900 + n, "product_id": each} for each in (item, f"{item}-refill")]
    write_csv(tmp_path / "orders.csv", orders)
    write_csv(tmp_path / "order_products.csv", lines)
    _, found = card_of(tmp_path, "orders.csv", "order_products.csv")
    said = next(line for line in found.said if "let `sql` join them" in line)
    assert "orders.csv has whose it is (user_id)" in said
    (tmp_path / "joined.toml").write_text(
        f'name = "joined"\ntitle = "Joined"\nfolder = "{tmp_path}"\n[clicks]\ntime_unit = "date"\n'
        'tables.orders = { path = "orders.csv" }\ntables.order_products = { path = "order_products.csv" }\n'
        f"sql = '''{said[said.index('SELECT') :]}'''\n"
    )
    assert set(rows_of(tmp_path / "joined.toml")) >= set(EXPECTED)


def test_what_follows_from_the_query_is_no_item_nor_an_id_that_looks_like_seconds_a_time(tmp_path):
    """A user has one address, and a visit one user; ids of ten digits could be of 1990 to 2026."""
    lines = ["t_dat,customer_id,visit,home,article_id"]
    lines += [
        f"{t:%Y-%m-%d},{q},{q}-{n // 9},home of {q},0{663713000 + int(i[4:])}" for n, (q, i, t) in enumerate(CLICKS)
    ]
    (tmp_path / "log.csv").write_text("\n".join(lines))
    assert load_card(card_of(tmp_path, "log.csv")[0]).clicks.item == "article_id"
    (tmp_path / "log.csv").write_text("\n".join(lines).replace("article_id", "what"))
    clicks = load_card(card_of(tmp_path, "log.csv")[0]).clicks
    assert (clicks.query, clicks.item, clicks.time) == ("customer_id", "what", "t_dat")


def test_several_ids_in_one_text_and_a_row_of_its_own_are_no_item(tmp_path):
    """As MIND has its impressions, of which most were not clicked."""
    shown = [" ".join(f"N{k}-{int(k == n % 11)}" for k in range(n % 3 + 1)) for n in range(60)]
    lines = [f"{n}\tU{q}\t{t:%m/%d/%Y %I:%M:%S %p}\t{shown[n]}" for n, (q, _, t) in enumerate(CLICKS)]
    (tmp_path / "behaviors.tsv").write_text("\n".join(lines))
    with pytest.raises(CardError, match=r"column_1 \(another value in each row\).* column_4 \(several ids in one text"):
        card_of(tmp_path, "behaviors.tsv")


def test_small_numbers_of_users_and_items_alike_do_not_swap_them(tmp_path):
    """Users 0 to 6 are also numbers of films: the item's numbers are more of the catalogue's."""
    (tmp_path / "u.data").write_text("\n".join(f"{q[1:]}\t{i[4:]}\t3\t{t:%s}" for q, i, t in CLICKS))
    (tmp_path / "u.item").write_text("\n".join(f"{n}|Film {n} (1995)|01-Jan-1995|0" for n in range(11)))
    path, _ = card_of(tmp_path, "u.data", "u.item")
    assert (load_card(path).clicks.query, load_card(path).item.table.id) == ("column_1", "column_1")


def test_a_column_that_some_files_lack_is_not_taken_for_the_type(tmp_path):
    rows = [{"user": q, "item": i, "ts": t.isoformat()} for q, i, t in CLICKS]
    write_csv(tmp_path / "new.csv", [row | {"event": "buy"} for row in rows[:40]])
    write_csv(tmp_path / "old.csv", rows[40:])
    path, found = card_of(tmp_path, "new.csv", "old.csv")
    assert rows_of(path) == EXPECTED and any("event is not taken for the event_type" in line for line in found.said)


@pytest.mark.parametrize("mark", [", ", "~", "^", "\x01"])
def test_what_else_divides_lines(mark: str, tmp_path: Path):
    lines = [mark.join(("user", "item", "ts")), *(mark.join((q, i, t.isoformat())) for q, i, t in CLICKS)]
    (tmp_path / "log.txt").write_text("\n".join(lines))
    assert rows_of(card_of(tmp_path, "log.txt")[0]) == EXPECTED


def test_lines_of_software_before_the_fields_are_passed_over(tmp_path):
    """As IIS writes them, one of them with as many words as there are columns."""
    lines = ["#Software: Internet Information Services 10", "#Fields: date time c-ip cs-uri-stem status"]
    lines += [f"{t:%Y-%m-%d} {t:%H:%M:%S} 10.0.0.{n % 13} /p/{i} 200" for n, (_, i, t) in enumerate(CLICKS)]
    (tmp_path / "u_ex.log").write_text("\n".join(lines))
    rows = [(f"10.0.0.{n % 13}", f"/p/{i}", round(t.timestamp() * 1000)) for n, (_, i, t) in enumerate(CLICKS)]
    assert rows_of(card_of(tmp_path, "u_ex.log")[0]) == sorted(rows)


def test_a_dump_of_one_line_is_refused_at_once(tmp_path):
    (tmp_path / "dump.sql").write_text("INSERT INTO clicks VALUES " + ",".join(["(1,'a','b',2)"] * 600))
    with pytest.raises(CardError, match="2,400 columns in its first line"):
        card_of(tmp_path, "dump.sql")


def test_a_catalogue_of_many_columns_is_planned_in_a_time_that_grows_with_them(tmp_path):
    """The words for nothing cost a plan that grew with the cube of the columns, and all memory for a thousand."""
    write_csv(tmp_path / "wide.csv", [{"id": f"sku-{n}"} | {f"x{k}": f"{n * k}" for k in range(60)} for n in range(11)])
    features = "".join(f'x{k} = {{ column = "x{k}", kind = "category" }}\n' for k in range(60))
    (tmp_path / "card.toml").write_text(
        'name = "x"\ntitle = "x"\n[clicks]\npath = "log.csv"\n[item]\ntable = { path = "wide.csv", id = "id" }\n'
        f"[item.features]\n{features}"
    )
    assert read_catalogue(load_card(tmp_path / "card.toml"), tmp_path, "item").num_rows == 11


def test_a_path_in_a_bucket_is_refused_with_what_to_do(tmp_path):
    with pytest.raises(CardError, match="mount that storage or copy"):
        guess([Path("s3://shop/log.csv")], tmp_path, "log")


def test_wrong_times_of_some_rows_are_told_with_the_unit_that_would_be_right(tmp_path):
    for n, factor in enumerate((1, 1000)):
        rows = [{"user": q, "item": i, "ts": round(t.timestamp()) * factor} for q, i, t in CLICKS[n * 40 : 40 + n * 20]]
        write_csv(tmp_path / f"{n}.csv", rows)
    path, _ = card_of(tmp_path, "0.csv", "1.csv")
    (told,) = [problem for problem in check_dataset(load_card(path), tmp_path, 0).problems if "row 1 has" in problem]
    assert "1.csv" in told and 'time_unit = "ms"' in told


def test_signals_against_an_item_are_rows_but_no_clicks(tmp_path):
    kinds = ["view", "dismiss", "other", "seen"]
    rows = [{"user": q, "item": i, "ts": t.isoformat(), "what": kinds[n % 4]} for n, (q, i, t) in enumerate(CLICKS)]
    write_csv(tmp_path / "log.csv", [*rows, *rows[:8]])
    (tmp_path / "card.toml").write_text(
        'name = "x"\ntitle = "x"\n[clicks]\npath = "log.csv"\nquery = "user"\nitem = "item"\ntime = "ts"\n'
        'time_unit = "date"\nevent_type = "what"\nevents = { view = 1.0, dismiss = -1.0, seen = 0.0 }\n'
    )
    card = load_card(tmp_path / "card.toml")
    report = check_dataset(card, tmp_path, 0)
    assert report.dropped == {"event type not in `events`": 17} and report.duplicates == 6
    assert report.types == {"dismiss": 15, "seen": 15, "view": 15} and (report.rows, report.clicks) == (45, 15)
    clicks, with_signals = (read_clicks(card, tmp_path, signals).num_rows for signals in (False, True))
    assert (clicks, with_signals) == (15, 30)


def test_sparse_properties_are_found_and_types_of_events_without_an_item_left_out(tmp_path):
    """As Segment, Mixpanel and others export them: an event has few of very many properties."""
    events = [
        {"anonymousId": q, "userId": None, "timestamp": t.isoformat(), "context": {"ip": f"::{q}"},
         "event": "Viewed" if n % 6 else "Searched",
         "properties": {f"p_{n}": n, f"text_{n % 7}": "x"} | ({"product_id": i} if n % 6 else {})}
        for n, (q, i, t) in enumerate(CLICKS)
    ]  # fmt: skip
    (tmp_path / "track.jsonl").write_text("\n".join(map(json.dumps, events)))
    path, found = card_of(tmp_path, "track.jsonl")
    assert rows_of(path) == sorted((q, i, round(t.timestamp() * 1000)) for n, (q, i, t) in enumerate(CLICKS) if n % 6)
    assert any("Searched have no product_id" in line for line in found.said)
    assert check_dataset(load_card(path), tmp_path, 0).dropped == {"event type not in `events`": 10}


def test_keys_with_values_beside_them_are_columns_and_no_rows(tmp_path):
    """As Google Analytics has its parameters, and a map of Hive its own."""
    events = [
        {"event_timestamp": str(round(t.timestamp() * 1e6)), "user_pseudo_id": q, "items": [],
         "event_params": [{"key": "session", "value": {"int_value": "1"}},
                          {"key": "page_location", "value": {"string_value": f"/{i}"}}]}
        for q, i, t in CLICKS
    ]  # fmt: skip
    (tmp_path / "ga.jsonl").write_text("\n".join(map(json.dumps, events)))
    assert rows_of(card_of(tmp_path, "ga.jsonl")[0]) == sorted((q, f"/{i}", at) for q, i, at in EXPECTED)
    params = pa.array([[("lang", "no"), ("item_id", i)] for _, i, _ in CLICKS], pa.map_(pa.string(), pa.string()))
    at = pa.array([t for _, _, t in CLICKS], pa.timestamp("us", "UTC"))
    pq.write_table(pa.table({"user": [q for q, _, _ in CLICKS], "at": at, "params": params}), tmp_path / "log.parquet")
    assert rows_of(card_of(tmp_path, "log.parquet")[0]) == EXPECTED


def test_pictures_of_a_few_rows_do_not_leave_out_the_others(tmp_path):
    """As Amazon's reviews and products have them."""
    lines = [
        {"user_id": q, "asin": i, "timestamp": round(t.timestamp() * 1000), "images": [{"url": "x"}] * (n % 2)}
        for n, (q, i, t) in enumerate(CLICKS)
    ]
    goods = [{"asin": f"sku-{n}", "title": f"Thing {n}", "images": [{"url": "x"}] * (n % 3)} for n in range(11)]
    for name, rows in {"log.jsonl": lines, "meta.jsonl": goods}.items():
        (tmp_path / name).write_text("\n".join(map(json.dumps, rows)))
    path, _ = card_of(tmp_path, "log.jsonl", "meta.jsonl")
    assert rows_of(path) == EXPECTED
    assert check_dataset(load_card(path), tmp_path, 0).catalogues["item"].rows == 11


def test_what_else_lies_beside_a_log_is_no_catalogue_and_new_files_are_read(tmp_path):
    (tmp_path / "log").mkdir()
    rows = [{"user": q, "item": i, "ts": t.isoformat()} for q, i, t in CLICKS]
    write_csv(tmp_path / "log" / "1.csv", rows[:40])
    (tmp_path / "log" / "README.md").write_text("# Log\n\nThe log, and what is in it.\n")
    (tmp_path / "log" / "1.md5").write_text("d41d8cd98f00b204e9800998ecf8427e  1.csv\n")
    path, found = card_of(tmp_path, "log")
    assert load_card(path).clicks.paths == ["log/*.csv"] and load_card(path).item.table is None
    assert sum("is left out: it has none of the clicks" in line for line in found.said) == 2
    write_csv(tmp_path / "log" / "2.csv", rows[40:])
    assert rows_of(path) == EXPECTED
    (tmp_path / "log" / "3.csv").symlink_to(tmp_path / "nothing")
    with pytest.raises(CardError, match="3.csv cannot be opened: No such file"):
        rows_of(path)


def test_numbers_of_something_else_do_not_make_a_catalogue_of_visitors(tmp_path):
    """As RetailRocket's tree of categories has, whose numbers are visitors', too."""
    write_csv(tmp_path / "log.csv", [{"visitorid": q[1:], "itemid": i, "ts": t.isoformat()} for q, i, t in CLICKS])
    write_csv(tmp_path / "category_tree.csv", [{"categoryid": n, "parentid": n // 2} for n in range(40)])
    path, found = card_of(tmp_path, "log.csv", "category_tree.csv")
    assert load_card(path).query.table is None
    assert any("category_tree.csv is left out: its ids (categoryid, parentid)" in line for line in found.said)


def test_columns_of_one_name_are_told_apart(tmp_path):
    """As a join of two tables with all columns has them."""
    lines = [
        "id,user_id,at,item_id,id,at",
        *(f"{n},{q},{t:%Y-%m-%d %H:%M},{i},7,2020-01-01" for n, (q, i, t) in enumerate(CLICKS)),
    ]
    (tmp_path / "log.csv").write_text("\n".join(lines))
    path, found = card_of(tmp_path, "log.csv")
    assert rows_of(path) == EXPECTED
    assert any(
        "several columns that are called at, id: the later ones are called id_2, at_2" in line for line in found.said
    )
    text = path.read_text()
    path.write_text("\n".join(line for line in text.splitlines() if not line.startswith(("header", "skip"))))
    with pytest.raises(CardError, match="has 2 columns that are called at: give each a name of its own"):
        rows_of(path)


def test_rows_that_were_shown_and_not_clicked_are_told(tmp_path):
    rows = [{"user": q, "item": i, "ts": t.isoformat(), "is_click": n % 2} for n, (q, i, t) in enumerate(CLICKS)]
    write_csv(tmp_path / "log.csv", rows)
    path, found = card_of(tmp_path, "log.csv")
    assert any("also where is_click is 0" in line for line in found.said)
    path.write_text(path.read_text().replace("# where", "where"))
    assert check_dataset(load_card(path), tmp_path, 0).dropped == {"left out by `where`": 30}


def test_ids_that_a_spreadsheet_has_rounded_are_told(tmp_path):
    rows = [{"user": f"4.0001{q[1:]}E+12", "item": i, "ts": t.isoformat()} for q, i, t in CLICKS]
    write_csv(tmp_path / "log.csv", rows)
    path, _ = card_of(tmp_path, "log.csv")
    assert any(
        "values of user are such as 4.00012E+12" in line
        for line in check_dataset(load_card(path), tmp_path, 0).problems
    )


@pytest.mark.parametrize("form", ["%d-%b-%y %I.%M.%S.000000 %p", "%b %d %Y %I:%M%p"])
def test_times_of_oracle_and_sql_server_are_read(form: str, tmp_path: Path):
    write_csv(tmp_path / "log.csv", [{"user": q, "item": i, "at": t.strftime(form).upper()} for q, i, t in CLICKS])
    path, found = card_of(tmp_path, "log.csv")
    assert rows_of(path) == EXPECTED, found.said


def test_numbers_that_count_from_an_unknown_moment_are_told_with_the_unit_that_orders_them(tmp_path):
    """As Outbrain has its milliseconds, whose rows are in no order."""
    rows = [{"uuid": q, "document_id": i, "timestamp": 61_000_000 + n * 997} for n, (q, i, _) in enumerate(CLICKS)]
    write_csv(tmp_path / "log.csv", rows[::-1])
    path, found = card_of(tmp_path, "log.csv")
    assert any('time = "timestamp" and time_unit = "position"' in line for line in found.said)
    text = path.read_text().replace('time_unit = "order"', 'time = "timestamp"\ntime_unit = "position"')
    path.write_text(text)
    clicks = read_clicks(load_card(path), tmp_path)
    assert clicks["query_id"].to_pylist() == [q for q, _, _ in CLICKS]
