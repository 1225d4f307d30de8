"""Bringing a log of one's own: ten lines of TOML and no code, whatever the log looks like."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cli.evaluate import compare
from feature_repo.card import CardError, load_card
from feature_repo.reader.catalogue import read_catalogue
from feature_repo.reader.clicks import read_clicks
from model.settings.settings import load_settings
from tests.own_logs import LOGS, bring

pytestmark = pytest.mark.trains


@pytest.mark.parametrize("name", LOGS)
def test_a_card_is_all_it_takes(name, tmp_path, monkeypatch):
    card_file = bring(tmp_path, name)
    assert len(card_file.read_text().strip().splitlines()) <= 11
    card = load_card(card_file)
    clicks = read_clicks(card, tmp_path / "log")
    assert len(clicks) == LOGS[name][1]
    assert (np.diff(clicks["event_time"].to_numpy()) >= 0).all()
    monkeypatch.setenv("DAT_DATA", str(tmp_path))
    settings = load_settings(home=tmp_path / "home", dataset=str(card_file))
    own = "last-out" if name == "books" else "live"
    for protocol, models in ((own, "item-cf,dat"), ("window", "popularity"), ("night", "dat")):
        result = compare(settings, protocol, models, 1, 150, 2)
        assert result["test_clicks"] > 0 and result["protocol"] == protocol
        assert all(found["hr50"] > 0 for found in result["results"].values())


def test_what_an_item_table_lacks_is_unknown_and_no_error(tmp_path):
    card = load_card(bring(tmp_path, "books"))
    items = read_catalogue(card, tmp_path / "log", "item")
    assert items["genres"].to_pylist()[:3] == [["crime", "novel"], ["travel"], []]
    assert items["price"].null_count == 6
    assert "id" in items.column_names and len(items) == 36


def test_dates_come_as_text_or_as_a_type(tmp_path):
    (tmp_path / "log").mkdir()
    card = load_card(bring_text(tmp_path, "at"))
    moments = ["2023-11-15", "2023-11-15 00:00:01", "2023-11-15T00:00:02.5Z"]
    ms = [1_700_006_400_000, 1_700_006_401_000, 1_700_006_402_500]
    for name, time in (
        ("text", moments),
        ("type", pa.array([1000 * at + 1 for at in ms], pa.timestamp("us"))),
        (
            "zone",
            pa.array(ms, pa.timestamp("ms", "Europe/Oslo")),
        ),
    ):
        pq.write_table(pa.table({"who": ["a"] * 3, "what": ["x"] * 3, "at": time}), tmp_path / "log" / "log.parquet")
        found = read_clicks(card, tmp_path / "log")["event_time"].to_pylist()
        assert found == ms, name
    pq.write_table(pa.table({"who": ["a"], "what": ["x"], "at": ["noon"]}), tmp_path / "log" / "log.parquet")
    with pytest.raises(
        CardError, match=r'log\.parquet: the column at does not hold times of time_unit = "date": row 1 has noon'
    ):
        read_clicks(card, tmp_path / "log")


def bring_text(folder: Path, time: str) -> Path:
    card = folder / "dates.toml"
    card.write_text(
        f"""name = "dates"
title = "Dates"
folder = "log"
clicks = {{ path = "log.parquet", query = "who", item = "what", time = "{time}", time_unit = "date" }}
"""
    )
    return card


def test_files_without_a_column_are_named(tmp_path):
    card = load_card(bring(tmp_path, "pages"))
    (tmp_path / "log" / "d.csv").write_text("visitor,ms\n1,2\n")
    with pytest.raises(CardError, match=r"d\.csv lacks the column page"):
        read_clicks(card, tmp_path / "log")
