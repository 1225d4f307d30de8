"""What is measured is what ships: the night's tables and hit rates are those of `dat evaluate`, to the value.

Five logs: with creation times, with types of events and a catalogue without those times, without a catalogue, by day,
and of positions alone.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cli.evaluate import compare
from cli.nightly import run_night
from evaluation.splits import Split, make_split
from feature_repo.reader.catalogue import read_catalogue
from feature_repo.reader.clicks import read_clicks
from feature_repo.source import dataset_folder
from model.settings.model import DATConfig
from model.settings.night import NightConfig, Rules
from model.settings.settings import Settings
from model.state import EntityState
from spark_jobs import train
from spark_jobs.training_set import data_card, folder_of
from tests.market import CARD, write_market
from tests.spark_jobs.conftest import FinishedNight, Silent
from tests.training.data import SMALL
from training.training_set import TrainingSet


def without_creation(text: str, folder: Path) -> str:
    """Some shops are in the catalogue and are never clicked; one that is clicked is not in it. Events have types."""
    clicks = pd.read_csv(folder / "clicks.csv")
    clicks["what"] = np.resize(["view", "view", "buy", "hide", "view", "", "scroll"], len(clicks))
    clicks.to_csv(folder / "clicks.csv", index=False)
    text = text.replace(
        'time = "at"', 'time = "at"\nevent_type = "what"\nevents = { view = 1.0, buy = 4.5, hide = -1.0 }'
    )
    shops = pd.read_csv(folder / "shops.csv")
    shops[shops.shop != "s1"].to_csv(folder / "shops.csv", index=False)
    return text.replace('created = "opened"\n', "")


def without_catalogue(text: str, folder: Path) -> str:
    """Also with more days asked for than there are, as in a first week."""
    clicks = text[text.index("[clicks]") : text.index("[query]")]
    return 'name = "bare"\ntitle = "Clicks"\nfolder = "market"\nwindow_days = 10\nhistory = 5\n' + clicks


def by_day(text: str, folder: Path) -> str:
    clicks = pd.read_csv(folder / "clicks.csv")
    clicks["at"] //= 86_400_000
    clicks.to_csv(folder / "clicks.csv", index=False)
    return text.replace('time_unit = "ms"', 'time_unit = "d"')


def of_positions(text: str, folder: Path) -> str:
    """Each query's clicks numbered by twos, so that every other one shares its position with the next."""
    clicks = pd.read_csv(folder / "clicks.csv")
    clicks["at"] = clicks.groupby("user").cumcount() // 2
    clicks.sample(frac=1, random_state=0).to_csv(folder / "clicks.csv", index=False)
    return text.replace('time_unit = "ms"', 'time_unit = "position"').replace('created = "opened"\n', "")


def settings_of(folder: Path, change: Callable[[str, Path], str]) -> Settings:
    card = write_market(folder, clicks=1_500)
    card.write_text(change(CARD, folder / "market"))
    # No two batches are of one size, and none is the default.
    model = DATConfig(epochs=1, tower=SMALL, batch_size=48)
    night = NightConfig(model=model, negatives=3, seed=7, rules=Rules(min_day=0), test_clicks=150)
    return Settings(home=folder / "home", data=folder, dataset=str(card), night=night)


def split_of(settings: Settings, protocol) -> Split:
    card = settings.card
    folder = dataset_folder(card, settings.data, settings.home / "downloads")
    catalogues = {side: read_catalogue(card, folder, side) for side in ("query", "item")}
    night = settings.night_of(card)
    return make_split(
        read_clicks(card, folder), catalogues, card, protocol, night.negatives or 0, night.seed, night.test_clicks
    )


def assert_same_states(one: EntityState, two: EntityState) -> None:
    assert one.ids == two.ids and one.trained == two.trained
    for name in EntityState.NAMES:
        first, second = getattr(one, name), getattr(two, name)
        if name == "counters":  # sums in another order
            np.testing.assert_allclose(first, second, rtol=1e-6, err_msg=name)
        else:
            np.testing.assert_array_equal(first, second, name)


def assert_parity(settings: Settings, night, protocol: str) -> Split:
    card, folder = settings.card, folder_of(settings.home, night.date)
    split, data = split_of(settings, protocol), TrainingSet.load(folder, settings.card)
    for name in ("queries", "items", "times", "moments", "weights"):
        np.testing.assert_array_equal(getattr(split.data.clicks, name), getattr(data.clicks, name), name)
    np.testing.assert_array_equal(split.data.negatives, data.negatives)
    assert_same_states(split.data.queries, data.queries)
    assert_same_states(split.data.items, data.items)
    assert (split.data.query_spec, split.data.item_spec) == (data.query_spec, data.item_spec)
    np.testing.assert_array_equal(split.data.item_category, data.item_category)
    assert split.data.excludes_seen == data.excludes_seen

    table = train.read_clicks(folder / "test", card, settings.night.test_clicks)
    described = data_card(folder)
    assert described is not None and described["cut"] == split.cut_ms
    test = train.test_clicks(
        data, table, train.read_catalogues(settings.home / "offline"), card, described["cut"]
    )  # fmt: skip
    for name in ("queries", "items", "times", "moments", "weights"):
        np.testing.assert_array_equal(getattr(split.test.clicks, name), getattr(test.clicks, name), name)
    assert_same_states(split.test.queries, test.queries)
    assert_same_states(split.test.items, test.items)
    compared = compare(settings, protocol, "dat", 1, None, None)
    evaluated = compared["results"]["dat"]["runs"][0]
    assert compared["chosen"].items() <= described["chosen"].items() and "closed_form.weight" in compared["chosen"]
    kinds = {"live": evaluated, "static": evaluated["static"]} if split.live else {"static": evaluated}
    rates = {
        f"{kind}_{key}": rates[key] for kind, rates in kinds.items() for key in rates if key.startswith(("hr", "m"))
    }
    assert rates == {name: night.metrics[name] for name in rates} and len(rates) == 5 * len(kinds)
    assert not any(name.startswith("live") for name in night.metrics) or split.live
    return split


def test_with_creation_times(finished_night: FinishedNight):
    split = assert_parity(finished_night.settings, finished_night.summary, "night")
    late = split.data.items.since > split.data.clicks.times[0]
    assert late.any() and split.data.negatives.max() == late.size - 1, "some shops open in the window"


@pytest.mark.usefixtures("spark")
@pytest.mark.parametrize(
    "change",
    [without_creation, *(pytest.param(change, marks=pytest.mark.slow) for change in (without_catalogue, by_day))],
    ids=lambda change: change.__name__,
)
def test_night(change, tmp_path: Path):
    settings = settings_of(tmp_path, change)
    night = run_night(settings, progress=Silent())
    split = assert_parity(settings, night, "night")
    if change is without_creation:
        assert sorted(set(split.data.clicks.weights.tolist())) == [1.0, 4.5] and night.log.rows > len(split.data.clicks)
    if change is without_catalogue:
        assert night.days == 3 and len(split.data.queries.recent_items[0]) == 5
    if change is by_day:
        assert len(np.unique(split.data.clicks.times)) == 3 and len(split.data.clicks) > 500


@pytest.mark.slow
@pytest.mark.usefixtures("spark")
def test_last_out_of_positions(tmp_path: Path):
    settings = settings_of(tmp_path, of_positions)
    split = assert_parity(settings, run_night(settings, progress=Silent()), "last-out")
    assert len(split.test) == 40 and not split.live
