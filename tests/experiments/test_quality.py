"""That a change has not cost quality: DAT against its strongest simple rival, on real clicks."""

from pathlib import Path

import pytest

from feature_repo.card import CardError, load_card
from feature_repo.source import dataset_folder, read_clicks, read_profiles
from training.evaluation import measure, summarise
from training.models import build
from training.protocols import make_trial

DOWNLOADS = Path(__file__).parents[2] / ".dat" / "downloads"
NEWEST = 20_000


@pytest.mark.slow
def test_dat_finds_more_than_item_cf_live():
    """On the newest fifth of MovieLens-100K, each of the last tenth of its clicks predicted before it is folded in."""
    card = load_card("movielens-100k")
    try:
        folder = dataset_folder(card, Path(), DOWNLOADS)
    except CardError as error:
        pytest.skip(str(error))
    clicks = read_clicks(card, folder)
    profiles = {side: read_profiles(card, folder, side) for side in ("query", "item")}
    trial = make_trial(clicks.slice(len(clicks) - NEWEST), profiles, card, "live", negatives=1)
    found = {}
    for name in ("dat", "item-cf"):
        model = build(name)
        model.fit(trial.window)
        found[name] = summarise(measure(model.scorer(trial.replay, trial.live), trial.replay, trial.filter_seen))
    assert found["dat"].hr100 > found["item-cf"].hr100
