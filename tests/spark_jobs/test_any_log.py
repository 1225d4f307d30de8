"""Whole nights on logs that are small, odd or of another zone: night and `dat evaluate` say the same of them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cli.evaluate import compare
from cli.nightly import run_night
from feature_repo.card import load_card
from feature_repo.reader.dataset import check_dataset
from model.settings.model import DATConfig
from model.settings.night import NightConfig
from model.settings.settings import Settings
from spark_jobs.land_log import summary
from spark_jobs.validate import BadNight
from tests.feature_repo.test_cases import CASES, NAMES, REFUSED
from tests.spark_jobs.conftest import Silent
from tests.training.data import SMALL

CARD = """
name = "odd"
title = "An odd log"
folder = "."
timezone = "{zone}"
[clicks]
path = "clicks.csv"
query = "user"
item = "item"
time = "at"
"""
CATALOGUE = '[item]\ntable = { path = "goods.csv", id = "item" }\n'
HOURS = {"UTC": 0, "Europe/Oslo": 1, "Asia/Kolkata": 5.5}


def bring(folder: Path, users: int = 20, items: int = 30, zone: str = "UTC", catalogue: str = "") -> Settings:
    """Three whole days of 400 clicks by a zone's clock, from 2023-11-15 on."""
    rng = np.random.default_rng(0)
    at = 1_700_006_400 - round(3_600 * HOURS[zone]) + np.sort(rng.integers(0, 3 * 86_400, 400))
    who, what = rng.integers(0, users, 400), rng.integers(0, items, 400)
    rows = [f"u{u},i{i},{t}" for u, i, t in zip(who, what, at, strict=True)]
    (folder / "clicks.csv").write_text("\n".join(["user,item,at", *rows]) + "\n")
    (folder / "goods.csv").write_text("\n".join(["item", *(f"i{n}" for n in range(items))]) + "\n")
    (folder / "card.toml").write_text(CARD.format(zone=zone) + catalogue)
    night = NightConfig(model=DATConfig(epochs=1, tower=SMALL))
    return Settings(home=folder / "home", data=folder, dataset=str(folder / "card.toml"), night=night)


@pytest.mark.usefixtures("spark")
@pytest.mark.parametrize(
    "odd",
    [
        {"zone": "Asia/Kolkata"},
        pytest.param({"users": 1}, marks=pytest.mark.slow),
        pytest.param({"catalogue": CATALOGUE, "zone": "Europe/Oslo"}, marks=pytest.mark.slow),
    ],
    ids=["three days in Kolkata", "one user", "a catalogue without features, in Oslo"],
)
def test_night_and_evaluate_agree_on_rows_and_days(odd: dict[str, Any], tmp_path: Path):
    settings = bring(tmp_path, **odd)
    night = run_night(settings, progress=Silent())
    result = compare(settings, "night", "popularity", 1, None, None)
    assert night.log is not None and (str(night.date), night.days) == ("2023-11-17", 2)
    for key in ("rows_read", "rows", "queries", "items", "dropped", "duplicates"):
        assert result["log"][key] == getattr(night.log, key), key
    assert result["train_clicks"] == night.rows > 0


@pytest.mark.usefixtures("spark")
def test_one_item_is_refused_in_a_sentence(tmp_path: Path):
    with pytest.raises(BadNight, match="no item has more than 50% of a day's clicks"):
        run_night(bring(tmp_path, items=1), progress=Silent())


@pytest.mark.slow
@pytest.mark.shared_data
@pytest.mark.usefixtures("spark")
@pytest.mark.parametrize("name", [name for name in NAMES if name not in REFUSED])
def test_a_night_counts_of_a_case_what_a_check_counts_and_runs_through_or_says_why(name: str, tmp_path: Path):
    """Clicks of one day alone make no window; those nights end in a sentence, after the log was counted."""
    card = load_card(CASES / name / "card.toml")
    checked = check_dataset(card, Path(card.folder), 0.01)
    night = NightConfig(model=DATConfig(epochs=1, tower=SMALL))
    settings = Settings(home=tmp_path, data=Path(card.folder), dataset=str(CASES / name / "card.toml"), night=night)
    try:
        log = run_night(settings, progress=Silent()).log
    except BadNight as reason:
        assert len(str(reason).splitlines()) == 1
        if (log := summary(tmp_path / "lake")) is None:  # refused before anything landed
            return
    for key in ("rows_read", "rows", "queries", "items", "dropped", "duplicates"):
        assert getattr(log, key) == getattr(checked, key), key
