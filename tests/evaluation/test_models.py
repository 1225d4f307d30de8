"""One suite for every model of a comparison, on a log whose right answers are known."""

from collections.abc import Callable

import numpy as np
import pytest

from evaluation.metrics import MISS
from evaluation.models import MODELS, SEQUENCES, applicable, build, dat_config
from evaluation.ranks import rank_clicks
from evaluation.retriever import Retriever
from evaluation.test_clicks import TestClicks
from model.settings.model import DATConfig
from model.settings.settings import merged
from tests.evaluation.data import later, replaced, test_clicks
from tests.tiny import CUT_MS
from tests.training.data import SMALL, log, pair_of_a_moment, table, training_set
from training.training_set import TrainingSet

pytestmark = pytest.mark.trains

LEARNING = {"epochs": 8, "batch_size": 32, "learning_rate": 6e-3, "temperature": 5.0, "query_id_dropout": 0.5}
LEARNERS = [name for name in MODELS if not name.startswith("popularity") and name != "dat-paper"]  # which collapses


@pytest.fixture(scope="module")
def data() -> TrainingSet:
    return training_set(1_500)


@pytest.fixture(scope="module")
def fitted(data: TrainingSet) -> Callable[[str], Retriever]:
    """Every model, fitted once."""
    models: dict[str, Retriever] = {}

    def get(name: str) -> Retriever:
        if name not in models:
            small = {"tower": SMALL.model_dump()} if name.startswith(("dat", "two-tower")) else {}
            small |= {"closed_form": {"weight": 0}} if name == "dat" else {}  # what is chosen has tests of its own
            small |= {"memory": {"dim": 16, "span": 12}} if name in ("dat", *SEQUENCES) else {}
            models[name] = build(name, seed=0, **LEARNING, **small)
            models[name].fit(data, CUT_MS)
        return models[name]

    return get


def ranked(model: Retriever, test: TestClicks, live: bool) -> np.ndarray:
    return rank_clicks(model.scorer(test, live), test)


def scored(model: Retriever, test: TestClicks, live: bool) -> tuple[np.ndarray, np.ndarray]:
    """The ranks, and the scores [N, I] of the items that training knew."""
    scorer, parts = model.scorer(test, live), []
    score = scorer.score

    def record(rows: slice) -> np.ndarray:
        scores = score(rows)
        parts.append(scores[:, : test.items.trained].copy())
        return scores

    scorer.score = record  # type: ignore[method-assign]
    return rank_clicks(scorer, test), np.concatenate(parts)


@pytest.mark.parametrize("name", LEARNERS)
def test_it_learns_which_films_a_query_likes(name, data, fitted):
    """A third of the films is liked: a good model puts most clicks in the upper half, chance half of them."""
    after = log(300, seed=4)
    test = test_clicks(data, replaced(after, event_time=after["event_time"].to_numpy() + 86_400_000))
    assert (ranked(fitted(name), test, live=False) <= 30).mean() > 0.75


@pytest.mark.parametrize("moments", [None, 12], ids=["times of their own", "times that are shared"])
@pytest.mark.parametrize("live", [False, True], ids=["static", "live"])
@pytest.mark.parametrize("name", MODELS)
def test_no_click_helps_to_predict_itself_another_of_its_moment_or_an_earlier_one(name, live, moments, data, fitted):
    """Two logs that part in a click's item, and in all that comes after its moment: up to there ranks are the same."""
    first, second = later(110, 5, moments), later(110, 6, moments)
    times, at = first["event_time"].to_numpy(), 70
    if moments is not None:
        at, _ = pair_of_a_moment(first, 50)
    end = int(np.searchsorted(times, times[at], side="right"))
    parted = {side: first[side].to_pylist()[:end] + second[side].to_pylist()[end:] for side in ("query_id", "item_id")}
    parted["item_id"][at] = "i1" if parted["item_id"][at] != "i1" else "i2"
    (one, scores), (other, others) = (
        scored(fitted(name), test_clicks(data, clicks), live) for clicks in (first, replaced(first, **parted))
    )
    same = np.setdiff1d(np.arange(end), at)
    np.testing.assert_array_equal(one[same], other[same])
    np.testing.assert_allclose(scores[:end], others[:end], rtol=1e-4, atol=1e-5)
    assert one[7] == MISS, "an item is no candidate before its first click"


@pytest.mark.parametrize("name", MODELS)
def test_not_live_a_query_is_answered_alike_all_day_and_unknown_ids_get_finite_scores(name, data, fitted):
    """Vectors are of the cut: neither the hour of a click nor the clicks before it change them."""
    test = test_clicks(data, later(60, 7))
    for live in (True, False):
        scorer, block = fitted(name).scorer(test, live), slice(0, 60)
        scorer.begin(block)
        scores = scorer.score(block)
        assert scores.shape == (60, len(test.items)) and np.isfinite(scores).all()
    for query in np.unique(test.clicks.queries):
        mine = scores[test.clicks.queries == query][:, : test.items.trained]
        np.testing.assert_allclose(mine, np.broadcast_to(mine[0], mine.shape), rtol=1e-4, atol=1e-5)


# The two-tower and FM read no history; MIND and MVKE need more than 24 queries to generalise from it.
@pytest.mark.parametrize("name", [name for name in LEARNERS if name not in ("two-tower", "fm", "mind", "mvke")])
def test_live_history_helps_queries_that_training_never_saw(name, data, fitted):
    """Three new queries click films of one kind each; after eight clicks a live model knows it: chance is 30."""
    kinds = np.tile(np.arange(3), 20)
    clicks = table(kinds, 3 * (np.arange(60) // 3) + kinds, CUT_MS + 20_000 * np.arange(1, 61))
    test = test_clicks(data, replaced(clicks, query_id=[f"fresh-{kind}" for kind in kinds]))
    assert np.median(ranked(fitted(name), test, live=True)[24:]) < 26


def test_live_beats_static_for_queries_that_training_never_saw():
    """Train on two thirds of the queries; of the others, a click or two say which films they like."""
    clicks = log(4_000, queries=150)
    known = np.array([int(name[1:]) < 100 for name in clicks["query_id"].to_pylist()])
    data = training_set(window=clicks.filter(known), queries=150)
    model = build("dat-amm", epochs=6, tower=SMALL.model_dump(), **{k: LEARNING[k] for k in LEARNING if k != "epochs"})
    model.fit(data, CUT_MS)
    rest = clicks.filter(~known).slice(0, 500)
    rest = replaced(rest, event_time=rest["event_time"].to_numpy() + 86_400_000)
    test = test_clicks(data, rest, queries=150)
    assert (test.clicks.queries >= test.queries.trained).all()
    assert np.median(ranked(model, test, live=True)) < 0.8 * np.median(ranked(model, test, live=False))


def test_scores_are_the_log_odds_of_a_click_if_the_correction_counts_around_the_batch():
    """Every hour three other films take four fifths of the clicks: each of them 0.8/3 + 0.2/60, any other 0.2/60. They
    are as frequent among in-batch negatives, which only frequencies of that hour make up for."""
    rng = np.random.default_rng(0)
    hour = np.arange(3_000) // 125
    fashion = np.stack([rng.permutation(60)[:3] for _ in range(24)])
    item = np.where(rng.random(3_000) < 0.8, fashion[hour, rng.integers(0, 3, 3_000)], rng.integers(0, 60, 3_000))
    clicks = table(rng.integers(0, 24, 3_000), item, CUT_MS + np.arange(3_000) * 28_800)  # 125 clicks an hour
    data = training_set(window=clicks.slice(0, 2_500), negatives=1)
    test = test_clicks(data, clicks.slice(2_500))
    odds = {}
    for window in (100, 1_000_000):
        settings = LEARNING | {"epochs": 4, "batch_size": 64, "logq_window": window, "tower": SMALL.model_dump()}
        model = build("dat-amm", **settings)
        model.fit(data, CUT_MS)
        scorer, gaps = model.scorer(test, live=True), []
        for block in test.clicks.blocks(62):  # the first half of an hour, then the second, which knows the fashion
            scorer.begin(block)
            scores = LEARNING["temperature"] * scorer.score(block)
            in_fashion = np.zeros(60, bool)
            in_fashion[test.items.rows(f"i{film}" for film in fashion[hour[2_500 + block.start + 1]])] = True
            gaps.append(scores[:, in_fashion].mean() - scores[:, ~in_fashion].mean())
            scorer.end(block)
        odds[window] = np.mean(gaps[1::2])
    assert odds[100] == pytest.approx(np.log((0.8 / 3 + 0.2 / 60) / (0.2 / 60)), abs=0.7)
    assert odds[1_000_000] < odds[100] - 1


def test_what_makes_a_variant_stays_its_own():
    given = {"epochs": 3, "logq_window": 100, "memory": {"dim": 16}}
    assert applicable("dat", given) == given
    assert applicable("two-tower", given) == {"logq_window": 100, "tower": {"embedding_dim": 16, "output_dim": 16}}
    assert applicable("dat-paper", given) == applicable("dat-cal", given) == applicable("wals", given) == {}
    assert applicable("mind", {"epochs": 3}) == {} and applicable("mind", given) == {"dim": 16, "logq_window": 100}


def test_of_a_tower_only_what_is_named_changes():
    config = dat_config("dat", tower={"output_dim": 64})
    assert config.tower.output_dim == 64 and config.tower.hidden == DATConfig().tower.hidden
    assert merged({"tower": {"hidden": [8]}, "epochs": 2}, {"tower": {"output_dim": 8}, "epochs": 3}) == {
        "tower": {"hidden": [8], "output_dim": 8}, "epochs": 3,
    }  # fmt: skip
