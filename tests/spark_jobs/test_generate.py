"""The made-up market: its clicks follow its law, and do not depend on how Spark cuts the work."""

from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from cli.generate import generate
from cli.nightly import run_night
from cli.settings import Settings
from feature_repo.card import load_card
from spark_jobs import generate as job
from spark_jobs import lake
from spark_jobs.config import NightConfig
from spark_jobs.features import read_profiles
from spark_jobs.market import DAY_MS, SHARES, Market
from spark_jobs.session import spark_session
from tests.spark_jobs.conftest import Silent
from training.config import DATConfig

MARKET = Market(queries=300, items=1_000, days=10, seed=3)


@pytest.fixture(scope="module")
def made():
    """Queries, items and moments (days from the start) of 30,000 clicks."""
    query, item, time = MARKET.clicks(np.arange(30_000))
    return query, item, (time - MARKET.start_ms) / DAY_MS


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


def test_spark_writes_the_same_rows_however_it_cuts_them_and_the_card_reads_them(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(job, "ROWS_A_FILE", 700)
    with spark_session(NightConfig(cores="2", driver_memory="1g"), tmp_path / "spark") as spark:
        card = load_card(job.generate(spark, MARKET, 2_000, tmp_path / "market"))
        clicks = lake.read_log(spark, card, tmp_path / "market").toPandas()
        items = read_profiles(spark, card, tmp_path / "market", "item").toPandas()
        queries = read_profiles(spark, card, tmp_path / "market", "query").count()
    assert Path(card.folder) == tmp_path / "market" and len(list((tmp_path / "market/clicks").glob("*.parquet"))) == 3
    query, item, time = MARKET.clicks(np.arange(2_000))
    written = zip(clicks.query_id, clicks.item_id, clicks.event_time, strict=True)
    assert sorted(written) == sorted((f"q{q}", f"i{i}", t) for q, i, t in zip(query, item, time, strict=True))
    assert queries == MARKET.queries and len(items) == MARKET.items
    named = items.set_index("item_id").category
    assert named["i0"] == job.CATEGORIES[MARKET.category[0]] and named.nunique() == 9


def test_the_night_takes_a_generated_market_as_it_is(tmp_path: Path):
    generate(tmp_path / "shop", queries=100, items=300, days=5, clicks=3_000, seed=1)
    model = DATConfig(epochs=1)
    settings = Settings(home=tmp_path / "home", dataset=str(tmp_path / "shop" / "card.toml"),
                        night=NightConfig(cores="2", model=model))  # fmt: skip
    night = run_night(settings, progress=Silent())
    assert night.gate.verdict == "published" and night.rows > 2_000
    assert 0 < night.metrics["live_hr100"] <= 1
