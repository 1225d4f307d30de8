"""The bundle in service at another night's cut: what it would be there, had the stream folded the window."""

from datetime import UTC, datetime

import numpy as np
import pytest

from feature_repo.card import DatasetCard
from model.bundle import Bundle, Manifest, now
from model.settings.model import DATConfig
from tests.tiny import CUT_MS
from tests.training.data import CARD, CONFIG, GRADIENT, MEMORIES, log, profiles, training_set
from training.bring_up import at_cut
from training.fit import fit
from training.trained_model import TrainedModel

pytestmark = pytest.mark.trains


def bundle_of(model: TrainedModel) -> Bundle:
    moment = datetime.fromtimestamp(model.cut_ms / 1000, UTC)
    manifest = Manifest(
        version="one", dataset="tiny", created=now(), window=(moment, moment), offsets={}, config=model.config,
        query=model.query_spec, item=model.item_spec, services={}, metrics={}, lineage={},
    )  # fmt: skip
    return Bundle(manifest, model.towers, model.queries, model.items)


@pytest.mark.parametrize("moments", [None, 20], ids=["times of their own", "times that are shared"])
@pytest.mark.parametrize("config", [MEMORIES, CONFIG], ids=["memories", "amm"])
@pytest.mark.parametrize("size", [32, 100])
def test_on_the_same_window_it_is_in_the_state_that_its_training_ended_in(size, moments, config):
    """So the vectors at the cut are also those of the final weights, not of the epochs that led there."""
    data = training_set(moments=moments)
    model = fit(data, config.model_copy(update={"epochs": 1, "batch_size": size}), cut_ms=CUT_MS)
    again = at_cut(bundle_of(model), data, profiles(), CARD, CUT_MS)
    assert again is not None
    for side in ("queries", "items"):
        old, new = getattr(model, side), getattr(again, side)
        for name in ("update_count", "clicks", "last_click", "recent_items", "codes", "since"):
            np.testing.assert_array_equal(getattr(old, name), getattr(new, name), name)
        for name in ("a", "counters", "vectors"):
            np.testing.assert_allclose(getattr(old, name), getattr(new, name), atol=2e-5, err_msg=name)
    assert (again.queries.update_count == np.bincount(data.clicks.queries)).all()
    assert np.abs(again.queries.a).max() > 0.1


@pytest.mark.parametrize("config", [MEMORIES, CONFIG, GRADIENT], ids=["memories", "amm", "paper"])
def test_ids_that_it_does_not_know_have_the_unknown_embedding_and_the_others_their_own(config: DATConfig):
    """A bundle of twelve queries and of the first films, at the cut of a window with more of both."""
    fewer = profiles() | {"item": profiles()["item"].slice(0, 30)}
    first = training_set(window=log(40, queries=12), catalogues=fewer)
    model = fit(first, config.model_copy(update={"epochs": 1}), cut_ms=CUT_MS)
    data = training_set()
    again = at_cut(bundle_of(model), data, profiles(), CARD, CUT_MS)
    assert again is not None
    for side in ("query", "item") if config.preset != "memories" else ("item",):
        state = data.queries if side == "query" else data.items
        old, new = (getattr(one, side).ids for one in (model.towers, again.towers))
        ids = model.queries.ids if side == "query" else model.items.ids
        rows = [ids.index(name) + 1 if name in ids else 0 for name in state.ids]
        assert 0 in rows and max(rows) > 0
        np.testing.assert_array_equal(new, old[[0, *rows]])
    assert np.isfinite(again.queries.vectors).all() and len(again.queries.vectors) == len(data.queries)


@pytest.mark.parametrize(
    "changed",
    [{"half_lives": ["2h", "24h"]}, {"features": {name: CARD.query.features[name] for name in ("city",)}}],
    ids=["other half-lives", "a feature less"],
)
def test_it_cannot_be_brought_up_where_the_card_counts_otherwise_or_lacks_what_it_reads(changed):
    data = training_set(100)
    model = fit(data, CONFIG.model_copy(update={"epochs": 1}), cut_ms=CUT_MS)
    card: DatasetCard = CARD.model_copy(update={"query": CARD.query.model_copy(update=changed)})
    assert at_cut(bundle_of(model), training_set(100, card=card), profiles(), card, CUT_MS) is None


def test_a_feature_more_in_the_card_does_not_matter_to_it():
    less = CARD.model_copy(update={"query": CARD.query.model_copy(update={"features": {}})})
    data = training_set(100, card=less)
    model = fit(data, CONFIG.model_copy(update={"epochs": 1}), cut_ms=CUT_MS)
    one, other = (
        at_cut(bundle_of(model), training_set(100, card=card), profiles(), card, CUT_MS) for card in (less, CARD)
    )
    assert one and other
    np.testing.assert_array_equal(one.queries.vectors, other.queries.vectors)
