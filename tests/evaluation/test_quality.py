"""That a change has not cost quality: DAT against its strongest simple rival, on real clicks."""

from pathlib import Path

import pytest

from evaluation.metrics import Metrics
from evaluation.models import build
from evaluation.ranks import rank_clicks
from evaluation.splits import make_split
from feature_repo.card import CardError, load_card
from feature_repo.reader.catalogue import read_catalogue
from feature_repo.reader.clicks import read_clicks
from feature_repo.source import dataset_folder

DOWNLOADS = Path(__file__).parents[2] / ".dat" / "downloads"


@pytest.mark.slow
def test_dat_finds_more_than_item_cf_live():
    """On MovieLens-100K, 2,000 clicks, each predicted before it is folded in.

    It takes this much to learn from: on the newest 20,000 clicks alone ItemCF finds more.
    """
    card = load_card("movielens-100k")
    try:
        folder = dataset_folder(card, Path(), DOWNLOADS)
    except CardError as error:
        pytest.skip(str(error))
    clicks = read_clicks(card, folder)
    catalogues = {side: read_catalogue(card, folder, side) for side in ("query", "item")}
    split = make_split(clicks, catalogues, card, "live", negatives=1, limit=2_000)
    hr100 = {}
    for name in ("dat", "item-cf"):
        model = build(name, epochs=3)
        model.fit(split.data, split.cut_ms)
        hr100[name] = Metrics.of(rank_clicks(model.scorer(split.test, split.live), split.test)).hr100
    assert hr100["dat"] > hr100["item-cf"]
