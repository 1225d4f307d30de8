"""One suite for every model of a comparison, on a log whose right answers are known."""

import numpy as np
import pyarrow as pa
import pytest

from tests.training.data import CARD, clicks, profiles
from training.config import DATConfig
from training.evaluation import MISS, measure
from training.models import MODELS, applicable, build, dat_config, over
from training.replay import make_replay
from training.window import make_examples

TRAINING = {"epochs": 12, "batch_size": 32, "learning_rate": 6e-3, "temperature": 5.0, "query_id_dropout": 0.5}
LEARNERS = [name for name in MODELS if not name.startswith("popularity") and name != "dat-paper"]  # which collapses


@pytest.fixture(scope="module")
def window():
    return make_examples(clicks(1_500), profiles(), CARD)


@pytest.fixture(scope="module")
def fitted(window):
    """Every model, fitted once."""
    made = {}

    def get(name):
        if name not in made:
            made[name] = build(name, seed=0, **TRAINING)
            made[name].fit(window)
        return made[name]

    return get


def replay_of(window, log):
    return make_replay(log, profiles(), CARD, window.query, window.item, window.query_spec, window.item_spec)


def later(count, seed):
    """Clicks after the window, two of them by a query and on an item that nobody knows."""
    log = clicks(count, seed=seed)
    names = {side: log[f"{side}_id"].to_pylist() for side in ("query", "item")}
    names["query"][5] = names["query"][9] = "q-new"
    names["item"][7] = names["item"][20] = "i-new"
    time = pa.array(log["event_time"].to_numpy() + 86_400_000)
    return pa.table({"query_id": names["query"], "item_id": names["item"], "event_time": time})


@pytest.mark.parametrize("name", LEARNERS)
def test_it_learns_which_films_a_query_likes(name, window, fitted):
    """A third of the films is liked: a good model puts most clicks in the upper half, chance half of them."""
    replay = replay_of(window, clicks(300, seed=4))
    found = measure(fitted(name).scorer(replay, live=False), replay, filter_seen=False)
    assert (found <= 30).mean() > 0.75


@pytest.mark.parametrize("live", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_no_click_helps_to_predict_itself_or_an_earlier_one(name, live, window, fitted):
    """Two logs that part at click 70: up to there every rank is the same."""
    first, second = later(110, seed=5), later(110, seed=6)
    parted = pa.concat_tables([first.slice(0, 70), second.slice(70)])
    parted = parted.set_column(2, "event_time", first["event_time"])
    found = []
    for log in (first, parted):
        replay = replay_of(window, log)
        found.append(measure(fitted(name).scorer(replay, live), replay, filter_seen=False))
    np.testing.assert_array_equal(found[0][:70], found[1][:70])
    assert found[0][7] == MISS, "an item is no candidate before its first click"


@pytest.mark.parametrize("name", MODELS)
def test_not_live_a_query_is_answered_alike_all_day(name, window, fitted):
    """Vectors are of the cut: neither the hour of a click nor the clicks before it change them."""
    log = later(60, seed=7)
    replay = replay_of(window, log)
    scores = fitted(name).scorer(replay, live=False).score(slice(0, 60))
    for query in np.unique(replay.queries):
        mine = scores[replay.queries == query]
        np.testing.assert_allclose(mine, np.broadcast_to(mine[0], mine.shape), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_unknown_queries_and_items_get_finite_scores(name, window, fitted):
    replay = replay_of(window, later(60, seed=7))
    for live in (False, True):
        scorer = fitted(name).scorer(replay, live)
        scores = scorer.score(slice(0, 40))
        assert scores.shape == (40, len(replay.item) if live else replay.known_items)
        assert np.isfinite(scores).all()


# The two-tower and FM read no history; MIND and MVKE need more than 24 queries to generalise from it.
@pytest.mark.parametrize("name", [name for name in LEARNERS if name not in ("two-tower", "fm", "mind", "mvke")])
def test_live_history_helps_queries_that_training_never_saw(name, window, fitted):
    """Three new queries click films of one kind each; after eight clicks a live model knows it: chance is 30."""
    kinds = np.tile(np.arange(3), 20)
    times = clicks(1_500)["event_time"][-1].as_py() + 20_000 * np.arange(1, 61)
    items = [f"i{3 * (k // 3) + kind}" for k, kind in enumerate(kinds)]
    log = pa.table({"query_id": [f"fresh-{kind}" for kind in kinds], "item_id": items, "event_time": times})
    replay = replay_of(window, log)
    found = measure(fitted(name).scorer(replay, live=True), replay, filter_seen=False)
    assert np.median(found[24:]) < 26


def test_what_makes_a_variant_stays_its_own():
    given = {"epochs": 3, "lambda_ca": 0.5, "query_id_dropout": 0.8}
    assert applicable("dat", given) == given
    assert applicable("dat-cal", given) == {"epochs": 3, "query_id_dropout": 0.8}
    assert applicable("two-tower", given) == {"epochs": 3, "lambda_ca": 0.5}
    assert applicable("dat-paper", given) == applicable("wals", given) == {}
    assert applicable("mind", given) == {} and applicable("mind", {"tower": {"output_dim": 64}}) == {"dim": 64}
    assert applicable("fm", {"frequency_window": 100, "epochs": 3}) == {"frequency_window": 100}


def test_of_a_tower_only_what_is_named_changes():
    config = dat_config("dat", tower={"output_dim": 64})
    assert config.tower.output_dim == 64 and config.tower.hidden == DATConfig().tower.hidden
    assert over({"tower": {"head": "relu"}, "epochs": 2}, {"tower": {"output_dim": 8}, "epochs": 3}) == {
        "tower": {"head": "relu", "output_dim": 8},
        "epochs": 3,
    }
