"""Dataset cards and the files that they describe."""

import re
from pathlib import Path

import pytest

from feature_repo.card import CARDS, CardError, duration_ms, load_card
from feature_repo.reader.catalogue import read_catalogue
from feature_repo.reader.clicks import read_clicks
from feature_repo.views import define
from tests.market import write_market

TEN_LINES = """
name = "ratings"
title = "Ratings in two files, by day"
[clicks]
path = ["2020.csv", "2021.csv"]
separator = ";"
query = "who"
item = "what"
time = "day"
time_unit = "d"
"""


@pytest.mark.parametrize("card", sorted(CARDS.glob("*.toml")), ids=lambda path: path.stem)
def test_each_card_of_the_project_is_valid_and_defines_a_feature_repository(card: Path, tmp_path: Path):
    read = load_card(card.stem)
    assert read.name == card.stem
    assert set(define(read, tmp_path).services) == {"query_tower", "item_tower"}


def test_ten_lines_describe_a_log_of_several_files_with_times_in_days(tmp_path: Path):
    (tmp_path / "ratings.toml").write_text(TEN_LINES)
    (tmp_path / "2020.csv").write_text("who;what;day\nb;y;18300\na;x;18262\n")
    (tmp_path / "2021.csv").write_text("day;who;what\n18628;a;z\n")
    clicks = read_clicks(load_card(tmp_path / "ratings.toml"), tmp_path)
    assert clicks["item_id"].to_pylist() == ["x", "y", "z"]
    assert clicks["event_time"].to_pylist() == [18262 * 86_400_000, 18300 * 86_400_000, 18628 * 86_400_000]


def test_profiles_have_the_types_of_their_kinds(tmp_path: Path):
    card = load_card(write_market(tmp_path))
    shops = read_catalogue(card, tmp_path / "market", "item")
    assert shops.schema.names == ["id", "name", "kinds", "opened"]
    assert shops["kinds"][0].as_py()[1] == "all"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (('query = "who"', 'query = "nobody"'), r"2020\.csv lacks the column nobody .* it has: who, what, day"),
        (('time = "day"', 'time = "what"'), r"the column what does not hold times of time_unit = \"d\": row 1 has y"),
        (("2020.csv", "1999.csv"), r"1999\.csv"),
    ],
)
def test_files_that_are_not_as_the_card_says_are_refused_by_name(tmp_path: Path, change, message):
    text = TEN_LINES.replace('"2020.csv", "2021.csv"', '"2020.csv"').replace(*change)
    (tmp_path / "card.toml").write_text(text)
    (tmp_path / "2020.csv").write_text("who;what;day\nb;y;18300\n")
    with pytest.raises(CardError, match=message):
        read_clicks(load_card(tmp_path / "card.toml"), tmp_path)


def test_a_card_with_an_unknown_key_is_refused_by_name(tmp_path: Path):
    (tmp_path / "card.toml").write_text(TEN_LINES + 'colour = "red"\n')
    with pytest.raises(CardError, match=r"clicks\.colour"):
        load_card(tmp_path / "card.toml")


def test_durations():
    assert [duration_ms(text) for text in ("30s", "10m", "6h", "20d")] == [30_000, 600_000, 21_600_000, 1_728_000_000]
    with pytest.raises(ValueError, match="6 hours"):
        duration_ms("6 hours")


@pytest.mark.parametrize(
    ("feature", "remedy"),
    [
        ('column = "price", kind = "number"', ': say decimal = "," in the table'),
        ('column = "listed", kind = "time", time_unit = "date"', '. But as time_unit = "%d.%m.%Y" they would lie from'),
        ('column = "title", kind = "number"', "; `sql` can compute it"),
    ],
)
def test_a_feature_whose_values_are_of_another_form_is_refused_with_the_line_that_reads_it(
    feature: str, remedy: str, tmp_path: Path
):
    lines = [f"i{n};Thing {n};1.0{n},50;{n}.12.2023" for n in range(13, 29)]
    (tmp_path / "goods.csv").write_text("\n".join(["id;title;price;listed", *lines]))
    (tmp_path / "card.toml").write_text(f"""
name = "goods"
title = "Goods"
clicks = {{ path = "clicks.csv" }}
[item]
table = {{ path = "goods.csv", separator = ";", id = "id" }}
features.one = {{ {feature} }}
""")
    with pytest.raises(CardError, match="16 of 16 values are none, such as .*" + re.escape(remedy)):
        read_catalogue(load_card(tmp_path / "card.toml"), tmp_path, "item")
