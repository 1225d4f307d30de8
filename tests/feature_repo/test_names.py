"""Features may be called anything; behind the card they have names that every engine takes."""

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_repo.card import CardError, load_card
from feature_repo.names import OWN, SQL, safe_names


def test_names_that_work_everywhere_stay_and_others_become_ones_near_them():
    names = ["genre", "price.eur", "order", "Order", "clicks", "1st_cat", "brand-name", "a__b", "ünder"]
    assert list(safe_names(names).values()) == [
        "genre", "price_eur", "order_", "Order_2", "clicks_", "f_1st_cat", "brand_name", "a_b", "f_nder",
    ]  # fmt: skip


@given(st.lists(st.text(max_size=12) | st.sampled_from(sorted(OWN | SQL)), unique=True, max_size=20))
@pytest.mark.long
def test_any_names_become_different_columns_that_sql_takes_unquoted(names: list[str]):
    columns = safe_names(names)
    assert list(columns) == names
    assert len({column.lower() for column in columns.values()}) == len(names)
    for column in columns.values():
        assert column.isidentifier() and column.isascii() and "__" not in column and column.lower() not in OWN
        assert duckdb.sql(f"SELECT 1 AS x, 2 AS {column}").columns[1] == column
        duckdb.sql(f"SELECT {column} FROM (SELECT 2 AS {column})").fetchall()


def test_every_word_that_duckdb_reserves_is_known():
    reserved = duckdb.sql("SELECT keyword_name FROM duckdb_keywords() WHERE keyword_category = 'reserved'").fetchall()
    assert {word for (word,) in reserved} <= SQL | OWN


CARD = """
name = "shop"
title = "Shop"
folder = "."
clicks = { path = "clicks.csv" }
[item]
table = { path = "items.csv", id = "sku" }
category = "brand-name"
created = "first seen"
features = { "brand-name" = { column = "b", kind = "category" }, "first seen" = { column = "f", kind = "time" } }
"""


@pytest.mark.parametrize(
    ("change", "refused"),
    [
        (('category = "brand-name"', 'category = "brand"'), "category = 'brand' is none of the features: brand_name"),
        (('category = "brand-name"', 'category = "first seen"'), "category = 'first_seen' is of kind time"),
        (('created = "first seen"', 'created = "brand-name"'), "created = 'brand_name' is of kind category;"),
        (('table = { path = "items.csv", id = "sku" }', ""), "item.features need item.table"),
        (('folder = "."', 'folder = "."\nday = "week"'), "day: 'week' is not a duration"),
        (('folder = "."', 'folder = "."\ntimezone = "Oslo"'), "timezone: 'Oslo' is no time zone"),
        (('"clicks.csv"', '"clicks.csv", time_unit = "minutes"'), "'minutes' is no unit; there are s, ms"),
        (('"clicks.csv"', '"clicks.csv", encoding = "utf-9"'), "'utf-9' is no encoding"),
        (('"clicks.csv"', '"clicks.csv", sql = "SELECT 1"'), "give either `path`, or `sql` with `tables`"),
        (('"clicks.csv"', '"clicks.csv", events = { buy = 1 }'), "`events` needs `event_type`"),
        (('"clicks.csv"', '"clicks.csv", separator = "-----"'), "a separator is one to four bytes"),
    ],
)  # fmt: skip
def test_what_a_card_says_is_checked_when_it_is_loaded(tmp_path, change, refused):
    (tmp_path / "card.toml").write_text(CARD)
    card = load_card(tmp_path / "card.toml")
    assert (card.item.category, card.item.created) == ("brand_name", "first_seen")
    (tmp_path / "card.toml").write_text(CARD.replace(*change))
    with pytest.raises(CardError) as refusal:
        load_card(tmp_path / "card.toml")
    assert refused in str(refusal.value)
