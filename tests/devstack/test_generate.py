"""The made-up market: its clicks follow its law, and neither they nor the memory depend on how the work is cut."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from cli.generate import generate
from cli.nightly import run_night
from devstack import generate as job
from devstack.market import DAY_MS, SHARES, Market
from feature_repo.card import load_card
from feature_repo.reader.catalogue import read_catalogue
from feature_repo.reader.clicks import read_clicks
from model.settings.model import DATConfig
from model.settings.night import NightConfig
from model.settings.settings import Settings
from tests.spark_jobs.conftest import Silent

MARKET = Market(queries=300, items=1_000, days=10, seed=3)


@pytest.fixture(scope="module")
def made():
    """Queries, items and moments (days from the start) of 30,000 clicks."""
    query, item, time = MARKET.clicks(np.arange(30_000))
    return query, item, (time - MARKET.start_ms) / DAY_MS


@pytest.mark.long
def test_items_are_clicked_as_often_as_the_law_says(made):
    query, item, day = (column[::3] for column in made)  # one click a session
    each = np.arange(MARKET.items)
    expected = np.zeros(MARKET.items)
    for start in range(0, len(query), 500):
        rows = slice(start, start + 500)
        size = len(query[rows])
        p = MARKET.probability(np.repeat(query[rows], len(each)), np.repeat(day[rows], len(each)), np.tile(each, size))
        expected += p.reshape(size, -1).sum(0)
    assert expected.sum() == pytest.approx(len(query), rel=0.01)
    often = expected >= 5
    observed = np.bincount(item, minlength=MARKET.items)
    pooled = [np.r_[values[often], values[~often].sum()] for values in (observed, expected)]
    pooled[1] *= pooled[0].sum() / pooled[1].sum()
    assert stats.chisquare(*pooled).pvalue > 0.001


def test_nothing_is_clicked_before_it_opens_and_nobody_clicks_before_arriving(made):
    query, item, day = made
    assert (MARKET.opened[item] <= day).all() and (MARKET.arrival(query, MARKET.queries) <= day).all()
    for time in range(1, MARKET.days):  # new items are clicked every day
        fresh = (MARKET.opened[item] > time) & (day < time + 1)
        assert fresh.any()


def test_the_market_has_categories_of_uneven_size_an_evening_and_tastes_that_drift(made):
    query, item, day = made
    category = MARKET.category[item]
    share = np.bincount(category, minlength=9) / len(item)
    assert share[0] > 0.3 and share[-2:].sum() < 0.05
    hours = np.bincount((day * 24 % 24).astype(int))
    assert hours[20] > 5 * hours[7]
    first, second = MARKET.tastes(query)
    moved = first != second
    for days, at_first in ((day < 1, True), (day >= MARKET.days - 1, False)):
        found = (category == first)[moved & days].mean(), (category == second)[moved & days].mean()
        assert bool(found[0] > 3 * found[1]) is at_first
    assert SHARES.sum() == pytest.approx(1)


@pytest.mark.parametrize("chunk", [64, 311, 5_000])
def test_the_rows_are_the_same_however_they_are_cut_and_the_card_reads_them(chunk: int, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(job, "ROWS_A_FILE", 700)
    monkeypatch.setattr(job, "CHUNK", chunk)
    card = load_card(job.generate(MARKET, 2_000, tmp_path / "market"))
    clicks = read_clicks(card, tmp_path / "market").to_pandas()
    items = read_catalogue(card, tmp_path / "market", "item").to_pandas()
    queries = len(read_catalogue(card, tmp_path / "market", "query"))
    assert Path(card.folder) == tmp_path / "market" and len(list((tmp_path / "market/clicks").glob("*.parquet"))) == 3
    query, item, time = MARKET.clicks(np.arange(2_000))
    written = zip(clicks.query_id, clicks.item_id, clicks.event_time, strict=True)
    assert sorted(written) == sorted((f"q{q}", f"i{i}", t) for q, i, t in zip(query, item, time, strict=True))
    assert queries == MARKET.queries and len(items) == MARKET.items
    named = items.set_index("id").category
    assert named["i0"] == job.CATEGORIES[MARKET.category[0]] and named.nunique() == 9


@pytest.mark.long
def test_ten_times_the_clicks_take_no_more_memory(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(job, "ROWS_A_FILE", 50_000)
    monkeypatch.setattr(job, "CHUNK", 25_000)
    peaks = []
    for clicks in (50_000, 500_000):
        tracemalloc.start()
        job.generate(Market(queries=3_000, items=1_000, days=10), clicks, tmp_path / str(clicks), threads=1)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.1 * peaks[0]


@pytest.mark.slow
@pytest.mark.usefixtures("spark")
def test_the_night_takes_a_generated_market_as_it_is(tmp_path: Path):
    generate(tmp_path / "shop", queries=100, items=300, days=5, clicks=3_000, seed=1)
    model = DATConfig(epochs=1)
    settings = Settings(home=tmp_path / "home", dataset=str(tmp_path / "shop" / "card.toml"),
                        night=NightConfig(cores="2", model=model, gate_popularity=False))  # fmt: skip
    night = run_night(settings, progress=Silent())
    assert night.gate.verdict == "published" and night.rows > 2_000
    assert 0 < night.metrics["live_hr100"] <= 1
