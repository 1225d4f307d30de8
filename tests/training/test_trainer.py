"""Training: it learns, leaks nothing, repeats itself, and says when it collapses."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch

from tests.tiny import CUT_MS
from tests.training.data import CARD, clicks, profiles
from training.collapse import health
from training.config import DATConfig, TowerConfig
from training.dat import DAT
from training.evaluation import measure, report
from training.live import LiveDAT, StaticDAT
from training.models import dat_config
from training.replay import make_replay
from training.trainer import Trainer, fit
from training.window import make_examples

SMALL = TowerConfig(embedding_dim=8, hidden=(32, 16), output_dim=8)
CONFIG = DATConfig(tower=SMALL, batch_size=32, epochs=4, learning_rate=6e-3, temperature=5.0)


@pytest.fixture(scope="module")
def made():
    return make_examples(clicks(), profiles(), CARD)


@pytest.fixture(scope="module")
def more():
    return make_examples(clicks(2_000), profiles(), CARD)


def train(made, **changes):
    config = CONFIG.model_copy(update=changes)
    return fit(made.examples, made.query, made.item, made.query_spec, made.item_spec, config)


@pytest.mark.parametrize(
    ("amm", "loss"),
    [("point_in_time", "sampled_softmax"), ("point_in_time", "bce"), ("gradient", "bce"), ("off", "bce")],
)
def test_every_mode_learns_which_films_a_query_likes(more, amm, loss):
    fitted = train(more, amm=amm, loss=loss, epochs=12)
    assert fitted.history[-1].loss_p < fitted.history[0].loss_p
    assert not fitted.history[-1].collapsed
    liked = np.array([[int(q[1:]) % 3 == int(i[1:]) % 3 for i in more.item.ids] for q in more.query.ids])
    scores = fitted.queries.vectors @ fitted.items.vectors.T
    assert scores[liked].mean() > scores[~liked].mean() + 0.1


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(made):
    first, again, other = train(made, epochs=1), train(made, epochs=1), train(made, epochs=1, seed=1)
    assert first.queries.vectors.tobytes() == again.queries.vectors.tobytes()
    assert first.queries.vectors.tobytes() != other.queries.vectors.tobytes()


def reads(made, rows=slice(0, 64)):
    """a_u and a_v that the examples ``rows`` read, in an untrained model's first replayed batch."""
    torch.manual_seed(0)
    model = DAT(len(made.query), len(made.item), made.query_spec, made.item_spec, CONFIG)
    trainer = Trainer(made.examples, made.query, made.item, model, CONFIG)
    taken = []
    for start in range(0, len(made.examples), 64):
        stop = min(start + 64, len(made.examples))
        query, item = (
            trainer.queries.take(np.arange(start, stop)),
            made.examples.item.take(np.arange(start * 5, stop * 5)),
        )
        taken.append(trainer._fold(query, item.take(np.arange(0, len(item), 5)), item.rows))
    return np.concatenate([u for u, _ in taken]), np.concatenate([v for _, v in taken])


def test_later_clicks_do_not_change_what_earlier_examples_read(made):
    """The last third of the positives, replaced: the a_u and a_v of the earlier rows stay, to the bit."""
    before = reads(made)
    shuffled = np.random.default_rng(0).permutation(200) + 400
    order = np.r_[np.arange(400), shuffled]
    examples = made.examples
    changed = type(examples)(
        examples.query_rows[order], examples.item_rows[order], examples.event_time, examples.query.take(order),
        examples.item.take((order[:, None] * 5 + np.arange(5)).ravel()),
    )  # fmt: skip
    after = reads(type(made)(changed, made.query, made.item, made.query_spec, made.item_spec))
    np.testing.assert_array_equal(before[0][:400], after[0][:400])
    np.testing.assert_array_equal(before[1][:2000], after[1][:2000])
    assert not np.array_equal(before[0][400:], after[0][400:])


def test_an_example_does_not_read_its_own_click(made):
    """A query's first click finds a_u empty; its second finds exactly the first's p_v."""
    a_u, _ = reads(made)
    rows = made.examples.query_rows
    first = np.array([np.flatnonzero(rows == query)[0] for query in np.unique(rows)])
    assert (a_u[first] == 0).all()
    second = np.flatnonzero(rows == rows[0])[1]
    memories = a_u[second].reshape(len(CONFIG.memories), 8)
    np.testing.assert_allclose(memories[0], memories[2])  # the first click counts fully in every memory
    np.testing.assert_allclose(np.linalg.norm(memories, axis=1), 1.0, rtol=1e-5)


def test_a_night_keeps_the_vectors_of_a_replay_that_ends_there(made):
    """Nights before examples 0, 192 and 448: what each keeps is what training on those before it would end with."""

    def trainer(**changed):
        torch.manual_seed(0)
        model = DAT(len(made.query), len(made.item), made.query_spec, made.item_spec, CONFIG)
        return Trainer(replace(made.examples, **changed), made.query, made.item, model, CONFIG)

    examples, nights = made.examples, np.repeat([0, 192, 448], [192, 256, 152])
    found = trainer(nights=nights).replay()
    assert list(found) == [0, 192, 448]
    for known, (a_u, a_v) in found.items():
        before = slice(0, known)
        shorter = trainer(
            query_rows=examples.query_rows[before], item_rows=examples.item_rows[before],
            event_time=examples.event_time[before], query=examples.query.take(before),
            item=examples.item.take(slice(0, known * 5)), nights=nights[before],
        )  # fmt: skip
        shorter.settle()
        day = np.flatnonzero(nights == known)
        rows_u, rows_v = examples.query.rows[day], examples.item_rows[day].ravel() + 1
        np.testing.assert_array_equal(a_u.read(rows_u), shorter.a_u.read(rows_u))
        np.testing.assert_array_equal(a_v.read(rows_v), shorter.a_v.read(rows_v))
        assert a_u.values.any() == a_v.values.any() == (known > 0)


def test_where_vectors_are_nightly_clicks_of_the_same_day_do_not_change_what_is_learnt_from_the_next(made):
    examples, nights = made.examples, np.repeat([0, 192, 448], [192, 256, 152])

    def loss(item_rows, nights):
        torch.manual_seed(0)
        config = CONFIG.model_copy(update={"loss": "bce"})  # no logQ, which counts around a batch
        model = DAT(len(made.query), len(made.item), made.query_spec, made.item_spec, config)
        item = replace(examples.item, rows=item_rows.ravel() + 1)
        changed = replace(examples, item_rows=item_rows, item=item, nights=nights)
        trainer = Trainer(changed, made.query, made.item, model, config)
        trainer.nights = trainer.replay()
        if nights is None:
            trainer.reset()
            for start in range(0, 384, 64):
                trainer.step(slice(start, start + 64))
        return trainer.step(slice(384, 448))

    other = examples.item_rows.copy()
    other[192:384] = other[192:384][::-1]
    assert loss(examples.item_rows, nights) == loss(other, nights)
    assert loss(examples.item_rows, None) != loss(other, None)


def test_batches_are_in_order_of_time_but_mixed_over_the_days_where_vectors_are_nightly(made, monkeypatch):
    for nights, in_order in ((None, True), (np.repeat([0, 200, 450], [200, 250, 150]), False)):
        model = DAT(len(made.query), len(made.item), made.query_spec, made.item_spec, CONFIG)
        trainer = Trainer(replace(made.examples, nights=nights), made.query, made.item, model, CONFIG)
        taken = []
        monkeypatch.setattr(trainer, "step", lambda rows, taken=taken: taken.append(rows) or [0.0] * 5)
        trainer.epoch()
        starts = [rows.start for rows in taken]
        assert (starts == sorted(starts)) is in_order
        assert sorted(row for rows in taken for row in range(600)[rows]) == list(range(600))
        assert nights is None or all(len(set(nights[rows])) == 1 for rows in taken)


def test_where_a_night_knew_nothing_there_is_no_latest_item_and_nothing_to_learn(made):
    model = DAT(len(made.query), len(made.item), made.query_spec, made.item_spec, CONFIG)
    nights = np.zeros(600, np.int64)
    trainer = Trainer(replace(made.examples, nights=nights), made.query, made.item, model, CONFIG)
    assert not trainer.queries.latest.any()
    before = [parameter.clone() for parameter in model.parameters()]
    trainer.epoch()
    assert all(map(torch.equal, before, model.parameters()))


@pytest.mark.parametrize("side", ["query", "item"])
def test_one_side_alone_may_be_augmented(made, side):
    fitted = train(made, augmented=side, epochs=1)
    widths = {"query": fitted.queries.a.shape[1], "item": fitted.items.a.shape[1]}
    assert widths.pop(side) == len(CONFIG.memories) and list(widths.values()) == [0]


def test_the_published_form_augments_both_sides():
    with pytest.raises(ValueError, match="augmented = query"):
        dat_config("dat", amm="gradient", augmented="query")


def test_all_candidates_of_a_batch_read_a_v_of_one_moment(made):
    """An item that stands in a batch as positive and as negative reads the same a_v in both places."""
    _, a_v = reads(made)
    rows = made.examples.item.rows
    for start in range(0, 3000, 320):
        seen = {}
        for row, vector in zip(rows[start : start + 320], a_v[start : start + 320], strict=True):
            assert np.array_equal(seen.setdefault(row, vector), vector)


def test_the_vectors_at_the_cut_lie_in_the_final_space(made):
    """Replaying the window once more with the published weights gives the published a_u and a_v."""
    fitted = train(made, epochs=2)
    trainer = Trainer(made.examples, made.query, made.item, fitted.model, CONFIG)
    trainer.settle()
    np.testing.assert_allclose(trainer.a_u.a[1:], fitted.queries.a, atol=1e-6)
    np.testing.assert_allclose(trainer.a_v.a[1:], fitted.items.a, atol=1e-6)
    assert (fitted.queries.folded == np.bincount(made.examples.query_rows)).all()


def test_gradient_mode_pulls_the_augmented_vectors_towards_the_other_towers_output(made):
    """a_u must come near the mean p_v of its query's items, not near p_u: the crossing, in a whole run."""
    fitted = train(made, amm="gradient", memories=(0.1,), loss="bce", epochs=20, lambda_u=20.0, lambda_v=20.0)
    a_u = fitted.queries.a[:, 0]
    p_v = np.stack(
        [fitted.items.vectors[made.examples.item_rows[made.examples.query_rows == q, 0]].mean(0) for q in range(24)]
    )
    crossed, straight = np.square(a_u - p_v).sum(1).mean(), np.square(a_u - fitted.queries.vectors).sum(1).mean()
    assert crossed < 0.5 * straight


def test_collapse_is_reported_and_health_is_not():
    rng = np.random.default_rng(0)
    assert health(rng.normal(size=(500, 8)))[0] > 7.5
    rank, dead = health(np.ones((500, 8)))
    assert rank == 1.0 and dead == 1.0
    half_dead = rng.normal(size=(500, 8)) * (np.arange(8) < 4)
    assert health(half_dead)[1] == 0.5


def test_live_folds_each_click_and_never_the_one_it_predicts(made):
    """Replacing click k and all later ones leaves the ranks of the clicks before k as they were."""
    fitted = train(made)
    after = clicks(120, seed=9)
    other = clicks(120, seed=10)
    mixed = after.slice(0, 70)
    mixed = {name: mixed[name].to_pylist() + other[name].to_pylist()[70:] for name in ("query_id", "item_id")}
    mixed = pa.table({**mixed, "event_time": after["event_time"]})
    found = []
    for log in (after, mixed):
        replay = make_replay(log, profiles(), CARD, made.query, made.item, made.query_spec, made.item_spec)
        found.append(measure(LiveDAT(fitted, replay), replay, filter_seen=False))
    np.testing.assert_array_equal(found[0][:70], found[1][:70])
    assert not np.array_equal(found[0][70:], found[1][70:])


def test_live_beats_static_for_queries_that_training_never_saw():
    """Train on two thirds of the queries; of the others, a click or two say which films they like."""
    log, catalogues = clicks(4_000, queries=150), profiles(150)
    known = np.array([int(name[1:]) < 100 for name in log["query_id"].to_pylist()])
    made = make_examples(log.filter(known), catalogues, CARD)
    fitted = train(made, epochs=10)
    rest = log.filter(~known).slice(0, 500)
    replay = make_replay(rest, catalogues, CARD, made.query, made.item, made.query_spec, made.item_spec)
    ranks = {}
    for scorer in (StaticDAT(fitted, replay, int(made.examples.event_time[-1])), LiveDAT(fitted, replay)):
        found = measure(scorer, replay, filter_seen=False)
        assert report(found, replay).parts["new queries"].clicks == len(replay)
        ranks[scorer.live] = np.median(found)
    assert ranks[True] < 0.8 * ranks[False]


def test_what_is_in_fashion_comes_first_if_frequencies_are_counted_around_the_batch():
    """Every hour three other films take most clicks. In-batch negatives are what is in fashion: corrected by the whole
    window's frequencies, in which all films are alike, the model learns to rank fashion out."""
    rng = np.random.default_rng(0)
    hour = np.arange(3_000) // 125
    fashion = np.stack([rng.permutation(60)[:3] for _ in range(24)])
    item = np.where(rng.random(3_000) < 0.8, fashion[hour, rng.integers(0, 3, 3_000)], rng.integers(0, 60, 3_000))
    query = rng.integers(0, 24, 3_000)
    log = pa.table(
        {
            "query_id": [f"q{k}" for k in query],
            "item_id": [f"i{k}" for k in item],
            "event_time": CUT_MS + np.arange(3_000) * 28_800,  # 125 clicks an hour
        }
    )
    made = make_examples(log.slice(0, 2_500), profiles(), CARD, negatives=1)
    replay = make_replay(log.slice(2_500), profiles(), CARD, made.query, made.item, made.query_spec, made.item_spec)
    among_three = {}
    for window in (100, 1_000_000):
        fitted = train(made, epochs=6, batch_size=64, frequency_window=window)
        among_three[window] = (measure(LiveDAT(fitted, replay), replay, filter_seen=False) <= 3).mean()
    assert among_three[100] > 1.1 * among_three[1_000_000]
