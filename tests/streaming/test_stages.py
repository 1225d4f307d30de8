"""The arithmetic of the two stages, without a broker: batches against one click at a time, and against autograd."""

import numpy as np
import pytest
import torch

from model.counters import decay
from model.features import Inputs, dense, encode
from model.folds import drifted
from model.recent_items import as_lists, newest
from streaming.clicks import Clicks
from streaming.kafka.records import WEIGHT, pack, unpack
from streaming.stages import item_stage, query_stage
from streaming.stages.item_readings import ItemReadings
from streaming.stages.profiles import NewProfiles, Profiles
from tests.streaming.loop import some_clicks
from tests.tiny import CUT_MS, SMALL, SMALL_AMM, item_profiles, query_profiles, tiny_bundle, tiny_store


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Profiles are waited for, however busy the machine is: what is compared here needs them."""
    monkeypatch.setattr("streaming.stages.profiles._WAIT_S", 60.0)
    monkeypatch.setattr("streaming.stages.profiles._OPEN_S", 60.0)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tiny_store(tmp_path_factory.mktemp("home"), queries=9, items=12)  # the catalogue knows more than the bundle


class Side:
    """Both stages' state, as the workers hold it."""

    def __init__(self, bundle, store):
        spec = bundle.manifest
        self.bundle = bundle
        self.queries, self.items = bundle.queries.copy(), bundle.items.copy()
        self.query_profiles = NewProfiles(Profiles(store, "query", spec.query))
        self.item_profiles = NewProfiles(Profiles(store, "item", spec.item))
        self.vectors = ItemReadings(bundle, Profiles(store, "item", spec.item))

    def query_step(self, clicks, weight=1.0):
        arrays = Clicks(
            [c.event_id for c in clicks],
            [c.query_id for c in clicks],
            [c.item_id for c in clicks],
            np.array([c.event_time for c in clicks], np.int64),
            np.zeros(len(clicks), np.int64),
            np.arange(len(clicks)),
            np.full(len(clicks), weight, np.float32),
        )
        step = query_stage.step(arrays, self.queries, self.query_profiles, self.vectors, self.bundle)
        step.update.apply(self.queries)
        return step

    def item_step(self, clicks, vectors):
        times = np.array([c.event_time for c in clicks], np.int64)
        ids, none = [c.item_id for c in clicks], np.zeros(len(clicks), np.int64)
        signals = item_stage.Signals(ids, vectors, times, none, np.ones(len(clicks), np.float32))
        step = item_stage.step(signals, self.items, self.item_profiles, self.bundle)
        step.apply(self.items)
        return step


@pytest.mark.parametrize(
    "config", [SMALL, SMALL_AMM, *(SMALL_AMM.model_copy(update={"recent_items": n}) for n in (0, 3))],
    ids=["memories", "more recent items than are kept", "no recent items", "fewer than are kept"],
)  # fmt: skip
def test_a_batch_of_the_query_stage_equals_one_click_at_a_time(store, config):
    bundle, clicks = tiny_bundle(config=config), some_clicks(60)
    batch, single = Side(bundle, store), Side(bundle, store)
    together = batch.query_step(clicks).vectors
    apart = np.concatenate([single.query_step([click]).vectors for click in clicks])
    np.testing.assert_allclose(together, apart, atol=1e-5)
    order = [single.queries.rows([key])[0] for key in batch.queries.ids]
    for column in ("a", "update_count", "clicks", "counters", "last_click", "recent_items", "codes", "numbers"):
        np.testing.assert_allclose(
            getattr(batch.queries, column), getattr(single.queries, column)[order], atol=1e-5, err_msg=column
        )


def test_what_a_click_weighs_reaches_the_counters_of_both_sides_and_nothing_else(store):
    bundle, clicks = tiny_bundle(), some_clicks(60)
    sides = {weight: Side(bundle, store) for weight in (1.0, 3.0)}
    for weight, side in sides.items():
        step = side.query_step(clicks, weight)
        rows = query_stage.signals(step, side.vectors, np.arange(len(clicks)))
        assert (WEIGHT in rows.schema.names) == (weight != 1)
        signals = item_stage.gather([rows], [0], bundle.manifest.config.signal_dim)
        item_stage.step(signals, side.items, side.item_profiles, bundle).apply(side.items)
    one, three = sides.values()
    for name in ("queries", "items"):
        state, heavy, before = getattr(one, name), getattr(three, name), getattr(bundle, name)
        spec = bundle.manifest.query if name == "queries" else bundle.manifest.item
        kept = np.zeros_like(state.counters)
        since = state.last_click[: len(before)] - before.last_click
        kept[: len(before)] = decay(before.counters, since, spec.half_lives_ms)
        np.testing.assert_allclose(heavy.counters - kept, 3 * (state.counters - kept), rtol=1e-3, atol=1e-5)
        np.testing.assert_array_equal(heavy.clicks, state.clicks)
    np.testing.assert_array_equal(one.queries.update_count, three.queries.update_count)


def test_a_batch_of_the_item_stage_equals_one_signal_at_a_time(store):
    bundle, clicks = tiny_bundle(), some_clicks(60)
    vectors = np.random.default_rng(3).normal(size=(60, 8)).astype(np.float32)
    batch, single = Side(bundle, store), Side(bundle, store)
    batch.item_step(clicks, vectors)
    for k, click in enumerate(clicks):
        single.item_step([click], vectors[[k]])
    order = [single.items.rows([key])[0] for key in batch.items.ids]
    for column in ("a", "update_count", "clicks", "counters", "last_click", "vectors"):
        np.testing.assert_allclose(
            getattr(batch.items, column), getattr(single.items, column)[order], atol=1e-5, err_msg=column
        )


def test_p_u_is_the_tower_on_what_was_known_before_the_click(store):
    bundle, (click,) = tiny_bundle(config=SMALL_AMM), some_clicks(1, queries=1, new=0)
    table, spec = bundle.queries, bundle.manifest.query
    fast = dense(
        spec, table.profile([0]), table.counters[:1], table.clicks[:1], table.last_click[:1], np.array([CUT_MS])
    )
    latest = newest(table.recent_items[:1], table.clicks[:1], bundle.manifest.config.recent_items) + 1
    inputs = Inputs(np.array([1]), table.codes[:1], fast, latest)
    expected = bundle.towers.query(inputs, table.a[:1])
    np.testing.assert_allclose(Side(bundle, store).query_step([click]).vectors, expected, atol=1e-6)


def test_p_u_reads_the_recent_items_newest_first_and_none_for_one_that_training_did_not_see(store):
    bundle = tiny_bundle(config=SMALL_AMM)
    side, clicks = Side(bundle, store), some_clicks(4, queries=1, new=0)
    clicks = [
        click.model_copy(update={"item_id": item})
        for click, item in zip(clicks, ("i4", "i10", "i2", "i1"), strict=True)
    ]
    read = []
    query = bundle.towers.query
    object.__setattr__(bundle.towers, "query", lambda inputs, a: read.append(inputs.recent) or query(inputs, a))
    side.query_step(clicks)
    before = [row + 1 for row in bundle.queries.recent_items[0, :3][::-1]]  # three clicks before the cut; four are kept
    assert read[0][:, :5].tolist() == [
        [*before, 0, 0], [5, *before, 0], [0, 5, *before[:2], 0], [3, 0, 5, before[0], 0]
    ]  # fmt: skip


def test_p_v_is_the_tower_on_what_is_known_after_the_click(store):
    bundle, (click,) = tiny_bundle(), some_clicks(1, items=1, new=0)
    side = Side(bundle, store)
    step = side.item_step([click], np.ones((1, 8), np.float32))
    new, spec = step.update, bundle.manifest.item
    fast = dense(spec, bundle.items.profile([0]), new.counters, new.clicks, new.last_click, np.array([CUT_MS]))
    assert new.clicks[0] == bundle.items.clicks[0] + 1
    expected = bundle.towers.item(Inputs(np.array([1]), bundle.items.codes[:1], fast), new.a)
    np.testing.assert_allclose(step.vectors, expected, atol=1e-6)


def test_the_mimic_step_is_one_sgd_step_of_equation_2(store):
    """‖a_u − sg(p_v)‖² with learning rate α/2, by autograd."""
    alphas = (0.4, 0.1)
    config = SMALL_AMM.model_copy(update={"ema_alphas": alphas})
    bundle, (click,) = tiny_bundle(config=config), some_clicks(1, queries=1, new=0)
    side = Side(bundle, store)
    side.queries.update_count[0] = 100  # past the first clicks, whose steps are larger
    p_v = torch.tensor(side.vectors.read(side.vectors.rows([click.item_id], 0))[0])
    for m, alpha in enumerate(alphas):
        a_u = torch.tensor(bundle.queries.a[0].reshape(2, -1)[m], requires_grad=True)
        (gradient,) = torch.autograd.grad((a_u - p_v.detach()).pow(2).sum(), a_u)
        expected = a_u - alpha / 2 * gradient  # by hand: torch.optim takes seconds to import
        side_step = Side(bundle, store)
        side_step.queries.update_count[0] = 100
        got = side_step.query_step([click]).update.a[0].reshape(2, -1)[m]
        np.testing.assert_allclose(got, expected.detach().numpy(), atol=1e-6)


def test_new_ids_share_the_unknown_row_and_have_their_profile(store):
    bundle = tiny_bundle()
    side = Side(bundle, store)
    rows = side.queries.add(["q7", "nobody"])
    side.query_profiles.fill(side.queries, rows)
    assert side.queries.embedding_rows(rows).tolist() == [0, 0]
    known = encode(bundle.manifest.query, query_profiles(9), 9)
    np.testing.assert_array_equal(side.queries.codes[rows[0]], known.codes[7])
    np.testing.assert_allclose(side.queries.numbers[rows[0]], known.numbers[7])
    assert not side.queries.codes[rows[1]].any()
    assert not side.queries.a[rows].any()
    row = side.vectors.rows(["i10"], CUT_MS)
    profile = encode(bundle.manifest.item, item_profiles(12), 12).take([10])
    zero = np.zeros(1, np.int64)
    fast = dense(bundle.manifest.item, profile, np.zeros((1, 3), np.float32), zero, zero, np.array([CUT_MS]))
    expected = bundle.towers.read(Inputs(zero, profile.codes, fast), np.zeros_like(bundle.items.a[:1]))
    np.testing.assert_allclose(side.vectors.read(row), expected, atol=1e-6)


def test_state_survives_the_changelog(store):
    bundle, clicks = tiny_bundle(), some_clicks(80)
    side, again = Side(bundle, store), Side(bundle, store)
    step = side.query_step(clicks)
    items = side.item_step(clicks, step.vectors)
    record = query_stage.changelog(step.update, side.queries.ids, side.vectors.ids, np.arange(len(step.update.rows)))
    query_stage.restore(unpack(pack(record, "b")).rows, again.queries, again.vectors).apply(again.queries)
    record = item_stage.changelog(items, side.items.ids, np.arange(len(items.vectors)))
    item_stage.restore(unpack(pack(record, "b")).rows, again.items).apply(again.items)
    for name, columns in (("queries", ()), ("items", ("vectors",))):
        state, other = getattr(side, name), getattr(again, name)
        order = other.rows(state.ids)
        for column in ("a", "update_count", "clicks", "counters", "last_click", *columns):
            np.testing.assert_array_equal(getattr(state, column), getattr(other, column)[order], err_msg=column)
    histories = [as_lists(s.queries.recent_items, s.queries.clicks, s.vectors.ids).to_pylist() for s in (side, again)]
    assert dict(zip(side.queries.ids, histories[0], strict=True)) == dict(
        zip(again.queries.ids, histories[1], strict=True)
    )


def test_history_keeps_the_recent_items_newest_last(store):
    bundle = tiny_bundle()
    side, clicks = Side(bundle, store), some_clicks(50, queries=1, new=0)
    side.query_step(clicks[:30])
    side.query_step(clicks[30:])
    (history,) = as_lists(side.queries.recent_items[:1], side.queries.clicks[:1], side.vectors.ids).to_pylist()
    assert history == [click.item_id for click in clicks[-4:]]


def test_a_two_tower_model_has_nothing_to_fold_and_counts_clicks(store):
    config = SMALL_AMM.model_copy(update={"ema_alphas": ()})
    bundle, clicks = tiny_bundle(config=config), some_clicks(20)
    side = Side(bundle, store)
    step = side.query_step(clicks)
    item_step = side.item_step(clicks, step.vectors)
    assert step.update.a.shape[1] == item_step.update.a.shape[1] == 0
    assert side.items.clicks.sum() == bundle.items.clicks.sum() + 20


def test_an_item_that_nobody_clicks_drifts_and_is_recomputed(store):
    bundle = tiny_bundle()
    state = Side(bundle, store).items
    every, spec = np.arange(len(bundle.items.ids)), bundle.manifest.item
    assert not len(drifted(state, spec, every, CUT_MS, 0.01))
    later = CUT_MS + 3_600_000
    moved = drifted(state, spec, every, later, 0.01)
    active = bundle.items.clicks > 0
    assert active[moved].sum() == active.sum()  # their counters have halved
    step = item_stage.recompute(every, state, bundle, later, np.zeros(len(every), np.int64))
    table = bundle.items
    fast = dense(spec, table.profile(), table.counters, table.clicks, table.last_click, np.full(len(every), later))
    expected = bundle.towers.item(Inputs(every + 1, table.codes, fast), table.a)
    np.testing.assert_allclose(step.vectors, expected, atol=1e-6)
    np.testing.assert_array_equal(step.update.a, table.a)
    step.apply(state)
    assert not len(drifted(state, spec, every, later, 0.01))
