"""That a change has not cost quality: DAT against its strongest simple rival, on real clicks."""

from pathlib import Path

import pytest

from feature_repo.card import CardError, load_card
from feature_repo.source import dataset_folder, read_clicks, read_profiles
from training.evaluation import measure, summarise
from training.models import build
from training.protocols import make_trial

DOWNLOADS = Path(__file__).parents[2] / ".dat" / "downloads"


@pytest.mark.slow
def test_dat_finds_more_than_item_cf_live():
    """On MovieLens-100K, 2,000 clicks, each predicted before it is folded in: HR@100 was 0.672 against 0.643 at first.

    It takes this much to learn from: on the newest 20,000 clicks alone ItemCF finds more.
    """
    card = load_card("movielens-100k")
    try:
        folder = dataset_folder(card, Path(), DOWNLOADS)
    except CardError as error:
        pytest.skip(str(error))
    clicks = read_clicks(card, folder)
    profiles = {side: read_profiles(card, folder, side) for side in ("query", "item")}
    trial = make_trial(clicks, profiles, card, "live", negatives=1, limit=2_000)
    found = {}
    for name in ("dat", "item-cf"):
        model = build(name, epochs=3)
        model.fit(trial.window)
        found[name] = summarise(measure(model.scorer(trial.replay, trial.live), trial.replay, trial.filter_seen))
    assert found["dat"].hr100 > found["item-cf"].hr100
