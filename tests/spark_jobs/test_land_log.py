"""Log files land in the lake night after night, each row exactly once, and what becomes of every row is told."""

import os
import shutil
from datetime import date
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from feature_repo.card import CardError, DatasetCard, load_card
from feature_repo.place import Place, UrlPath, read_parquet
from feature_repo.reader.clicks import read_clicks
from feature_repo.reader.dataset import read_dataset
from model.newest_day import LOOKED_AT, newest_day
from model.settings.night import Rules
from model.windows import latest, window
from spark_jobs.lake import dates, day_counts, landings
from spark_jobs.land_catalogue import land_catalogue
from spark_jobs.land_log import LandingReport, land_log, reports, summary
from spark_jobs.validate import BadNight
from tests.feature_repo.test_cases import CASES, NAMES, REFUSED
from tests.objects import Killed, kill_after

CARD = """
name = "shop"
title = "A shop"
folder = "."
[clicks]
path = "clicks-*.csv"
query = "user"
item = "sku"
time = "at"
time_unit = "date"
"""
Click = tuple[str, str, str]


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    (tmp_path / "card.toml").write_text(CARD)
    return tmp_path


def write(shop: Path, day: int, clicks: list[Click], header: str = "user,sku,at") -> None:
    (shop / f"clicks-{day:02}.csv").write_text("\n".join([header, *(",".join(click) for click in clicks)]) + "\n")


def clicks_of(day: int, count: int = 4) -> list[Click]:
    return [(f"u{n}", f"s{day}", f"2024-03-{day:02} {n + 8:02}:30:00") for n in range(count)]


@pytest.fixture(params=["folder", "url"])
def lake(request: pytest.FixtureRequest, shop: Path) -> Place:
    return shop / "lake" if request.param == "folder" else UrlPath.of(f"file://{shop}") / "lake"


def land(shop: Path, lake: Place | None = None, **options) -> LandingReport | None:
    return land_log(load_card(shop / "card.toml"), shop, lake or shop / "lake", Rules(), **options)


def rows(shop: Path, lake: Place | None = None) -> list[tuple]:
    """What the lake has: query, item, time, sorted; and each event once."""
    tables = [read_parquet(file) for one in landings(lake or shop / "lake") for file in one.files]
    every = [row for table in tables for row in table.to_pylist()]
    assert len({row["event_id"] for row in every}) == len(every)
    return sorted((row["query_id"], row["item_id"], row["event_time"]) for row in every)


def read(shop: Path) -> list[tuple]:
    """What the files have, as the experiments read them."""
    clicks = read_clicks(load_card(shop / "card.toml"), shop).to_pylist()
    return sorted((row["query_id"], row["item_id"], row["event_time"]) for row in clicks)


def test_each_night_lands_the_files_that_are_new_or_have_grown_and_no_row_twice(shop, lake):
    write(shop, 1, clicks_of(1))
    assert land(shop, lake).landed == 4
    assert land(shop, lake) is None, "nothing is new"
    write(shop, 2, clicks_of(2))
    assert land(shop, lake).landed == 4
    write(shop, 2, clicks_of(2, 7))  # the file of the day has grown
    grown = land(shop, lake)
    assert (grown.rows, grown.landed, grown.files) == (7, 3, 1)
    assert "the lake had 4 of them already" in grown.lines()[0]
    write(shop, 3, clicks_of(2) + clicks_of(3))  # an export that overlaps the last one
    assert (again := land(shop, lake)) and (again.rows, again.landed) == (8, 4)
    assert rows(shop, lake) == read(shop) and len(rows(shop, lake)) == 15
    assert dates(lake) == ["2024-03-01", "2024-03-02", "2024-03-03"]
    total = summary(lake)
    assert (total.rows_read, total.rows, total.already_landed) == (4 + 4 + 7 + 8, 15, 8)
    assert (total.queries, total.items) == (None, None), (
        "ids of several landings are not counted: nothing is read again"
    )


def test_a_file_that_has_lost_rows_is_told_by_name_and_its_rows_stay(shop, lake):
    write(shop, 1, clicks_of(1, 6))
    write(shop, 2, clicks_of(2, 6))
    land(shop, lake)
    write(shop, 1, clicks_of(1, 4))  # two rows are gone
    write(shop, 2, [("u0", "changed", "2024-03-02 08:30:00"), *clicks_of(2, 7)[1:]])  # one was written over, one is new
    lines = land(shop, lake).lines()
    assert [line for line in lines if "clicks-01.csv has changed and lacks 2 rows that were landed from it" in line]
    assert [line for line in lines if "clicks-02.csv has changed and lacks 1 rows" in line]
    assert len(rows(shop, lake)) == 14 and any("clicks-01.csv" in line for line in summary(lake).problems)
    anew = land(shop, lake, again=True)
    assert rows(shop, lake) == read(shop) and not any("lacks" in line for line in anew.lines())


@pytest.mark.long
@pytest.mark.parametrize("again", [False, True])
def test_a_landing_in_an_object_store_that_is_killed_between_any_two_requests_is_whole_after_the_next_one(
    again: bool, shop: Path, monkeypatch: pytest.MonkeyPatch
):
    kill = kill_after(monkeypatch, "write", "upload", "under", "delete", "delete_folder")
    write(shop, 1, clicks_of(1))
    for left in range(60):
        kill(-1)
        lake = UrlPath.of(f"file://{shop}") / f"lake-{left}"
        (shop / "clicks-02.csv").unlink(missing_ok=True)
        land(shop, lake)
        old = rows(shop, lake)
        write(shop, 2, clicks_of(2))
        kill(left)
        try:
            land(shop, lake, again=again)
            break
        except Killed:
            kill(-1)
            assert rows(shop, lake) in ((old, read(shop)) if not again else (old, [], read(shop)))
            land(shop, lake)
            assert rows(shop, lake) == read(shop) and len(read(shop)) == 8
    kill(-1)
    assert 5 < left < 59, "each prefix of the requests was tried"
    assert rows(shop, lake) == read(shop)


def test_a_file_is_known_by_its_content_whatever_its_time_and_folder(shop, tmp_path_factory):
    write(shop, 1, clicks_of(1))
    land(shop)
    os.utime(shop / "clicks-01.csv", (1, 1))
    assert land(shop) is None
    moved = tmp_path_factory.mktemp("moved")
    shutil.copytree(shop, moved, dirs_exist_ok=True)
    assert land(moved) is None


def test_a_landing_that_was_cut_off_is_made_again_and_lands_nothing_twice(shop, monkeypatch):
    write(shop, 1, clicks_of(1))
    land(shop)
    write(shop, 2, clicks_of(2))

    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("spark_jobs.land_log.LandingReport.model_dump_json", killed)
        with pytest.raises(KeyboardInterrupt):
            land(shop)
    assert len(rows(shop)) == 4 and not [path for path in (shop / "lake").iterdir() if path.name.startswith(".")]
    assert land(shop).landed == 4 and rows(shop) == read(shop)


def test_repeats_are_events_of_their_own_where_times_are_days_and_one_event_where_they_are_finer(shop):
    by_day = [("u1", "s1", "2024-03-01")] * 3
    write(shop, 1, by_day)
    assert (report := land(shop)) and (report.rows, report.duplicates) == (3, 0)
    write(shop, 1, [*by_day, by_day[0]])  # the same day once more
    assert land(shop).landed == 1
    write(shop, 2, by_day)  # exported again
    assert land(shop).landed == 0
    write(shop, 3, [("u1", "s1", "2024-03-01 10:00:00")] * 3)
    assert (report := land(shop)) and (report.landed, report.duplicates) == (1, 2)
    assert len(rows(shop)) == 5


def test_with_an_id_column_an_event_is_one_wherever_it_is_read(shop):
    text = (shop / "card.toml").read_text() + 'event_id = "id"\n'
    (shop / "card.toml").write_text(text)
    write(shop, 1, [(*click, f"e{n}") for n, click in enumerate(clicks_of(1))], "user,sku,at,id")
    land(shop)
    topic = shop / "lake" / "landing=kafka-1" / "date=2024-03-02"
    topic.mkdir(parents=True)
    event = pq.read_table(next(shop.glob("lake/landing=log-*/date=*/*.parquet")), partitioning=None).slice(0, 1)
    event = event.set_column(0, "event_id", [["e9"]])
    pq.write_table(event, topic / "0.parquet")
    write(shop, 2, [("u9", "s9", "2024-03-02 10:00:00", "e9"), ("u9", "s9", "2024-03-02 10:00:00", "e10")],
          "user,sku,at,id")  # fmt: skip
    assert (report := land(shop)) and (report.rows, report.landed) == (2, 1), "e9 has come by Kafka"


def test_a_card_that_reads_otherwise_lands_everything_anew(shop):
    write(shop, 1, [("u1", "s1", "2024-03-01 23:30:00"), ("u2", "s1", "2024-03-02 00:30:00")])
    land(shop)
    assert dates(shop / "lake") == ["2024-03-01", "2024-03-02"]
    card = (shop / "card.toml").read_text()
    (shop / "card.toml").write_text('timezone = "America/New_York"\n' + card)
    assert land(shop).landed == 2
    assert rows(shop) == read(shop) and dates(shop / "lake") == ["2024-03-01", "2024-03-02"]
    assert rows(shop)[0][2] == 1_709_353_800_000, "half past eleven at night in New York"
    assert len(reports(shop / "lake")) == 1


def test_what_is_left_out_is_counted_by_reason_and_too_much_damage_stops_the_night(shop):
    (shop / "card.toml").write_text((shop / "card.toml").read_text() + 'event_type = "kind"\nevents = { buy = 1.0 }\n')
    good = [(*click, "buy") for day in range(1, 9) for click in clicks_of(day, 12)]
    write(shop, 1, [*good, ("NULL", "s1", "2024-03-01", "buy"), ("u1", "s1", "2024-03-01 11:00:00", "scroll")],
          "user,sku,at,kind")  # fmt: skip
    report = land(shop)
    assert report.dropped == {"event type not in `events`": 1, "query id missing": 1}
    assert report.lines()[0].startswith("96 of 98 rows (1 event type not in `events`, 1 query id missing)")
    write(
        shop, 2, [("u1", "s1", "yesterday", "buy"), ("u1", "s1", "2024-03-01 11:00:00", "buy")] * 3, "user,sku,at,kind"
    )
    with pytest.raises(BadNight, match=r"3 of the log's 6 rows are damaged \(3 time unreadable\); at most 5.0% may be"):
        land(shop)
    assert len(rows(shop)) == 96


def test_latest_is_the_newest_day_that_is_whole_and_says_which_it_passed_over(shop):
    for day in range(1, 9):
        write(shop, day, clicks_of(day, 12))  # each until 19:30
    land(shop)
    card = load_card(shop / "card.toml")
    assert _latest(shop, card) == (date(2024, 3, 8), [])
    write(shop, 9, clicks_of(9, 5))  # until 12:30
    land(shop)
    day, said = _latest(shop, card)
    assert day == date(2024, 3, 8) and "2024-03-09 has not ended: its last click is of 12:30" in said[0]
    (shop / "clicks-10.csv").write_text("user,sku,at\nu1,s1,2024-05-20 23:59:00\n")  # a clock that is wrong
    land(shop)
    day, said = _latest(shop, card)
    assert day == date(2024, 3, 8) and "2024-05-20 has 1 clicks, where 12 are usual" in said[0]


def _latest(shop: Path, card: DatasetCard) -> tuple[date, list[str]]:
    newest = newest_day(card, day_counts(shop / "lake", LOOKED_AT), 0.1)
    return latest(card, newest.last_ms), newest.passed_over


def test_a_window_has_the_days_of_the_shops_clock_also_when_it_is_put_forward(shop):
    card = DatasetCard(name="s", title="s", timezone="Europe/Oslo", clicks={"path": "x"})
    span = window(card, date(2024, 4, 1), 2)
    assert span.end - span.cut == 24 * 3_600_000
    assert span.cut - span.start == 47 * 3_600_000, "the 31st of March had 23 hours"
    assert span.cut == 1_711_922_400_000  # 2024-03-31 22:00 UTC


def test_a_catalogue_that_lands_again_tells_what_has_changed(shop):
    card = load_card(shop / "card.toml")
    side = {"table": {"path": "items.csv", "id": "sku"}, "features": {"price": {"column": "eur", "kind": "number"}}}
    card = card.model_copy(update={"item": type(card.item).model_validate(side)})
    (shop / "items.csv").write_text("sku,eur\ns1,1\ns2,2\ns3,n/a\ns1,1.5\n,3\n")
    report = land_catalogue(card, shop, "item", shop / "items")
    assert (report.rows_read, report.rows, report.duplicates, report.conflicts) == (5, 3, 1, 1)
    assert report.dropped == {"id missing": 1} and report.unknown == {"price": 1} and report.unreadable == {"price": 1}
    assert dict(pq.read_table(shop / "items" / "rows.parquet").to_pandas().itertuples(index=False))["s1"] == 1.5
    (shop / "items.csv").write_text("sku,eur\ns1,1.5\ns2,3\ns4,4\n")
    report = land_catalogue(card, shop, "item", shop / "items")
    assert (report.added, report.changed, report.removed) == (1, 1, 1)


@pytest.mark.long
@pytest.mark.shared_data
@pytest.mark.parametrize("name", NAMES)
def test_a_case_lands_as_it_is_read(name, tmp_path):
    """What a night has in its lake is what `dat evaluate` reads, to the event, and what both say of it is the same."""
    card = load_card(CASES / name / "card.toml")
    folder, lake = Path(card.folder), tmp_path / "lake"
    if name in REFUSED:
        with pytest.raises(CardError, match=REFUSED[name]):
            land_log(card, folder, lake, Rules())
        return
    landed = land_log(card, folder, lake, Rules(max_invalid=1))
    dataset = read_dataset(card, folder, 1)
    tables = [pq.read_table(file, partitioning=None) for file in lake.glob("landing=*/date=*/*.parquet")]
    events = sorted(event for table in tables for event in table["event_id"].to_pylist())
    assert events == sorted(dataset.clicks["event_id"].to_pylist())
    total = summary(lake)
    for key in ("rows_read", "rows", "queries", "items", "dropped", "duplicates", "corrected"):
        assert getattr(total, key) == getattr(dataset.report, key), key
    assert landed.problems == [problem for problem in dataset.report.problems if problem in landed.problems]
