"""The arithmetic of the two stages, without a broker: batches against one click at a time, and against autograd."""

import numpy as np
import pytest
import torch

from streaming import item_stage, query_stage
from streaming.clicks import Clicks
from streaming.item_vectors import ItemVectors
from streaming.profiles import Profiles
from streaming.state import SideState
from streaming.topics import pack, unpack
from tests.streaming.loop import some_clicks
from tests.tiny import CUT_MS, item_profiles, query_profiles, tiny_bundle, tiny_store
from training.dat import DATConfig, represent
from training.features import Inputs, dense, encode
from training.history import newest
from training.towers import TowerConfig


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tiny_store(tmp_path_factory.mktemp("home"), queries=9, items=12)  # the catalogue knows more than the bundle


class Side:
    """Both stages' state, as the workers hold it."""

    def __init__(self, bundle, store):
        spec = bundle.manifest
        self.bundle = bundle
        self.queries = SideState(bundle.queries, spec.query, Profiles(store, "query", spec.query), "history")
        self.items = SideState(bundle.items, spec.item, Profiles(store, "item", spec.item), "vectors")
        self.vectors = ItemVectors(bundle, Profiles(store, "item", spec.item))

    def query_step(self, clicks):
        arrays = Clicks(
            [c.event_id for c in clicks],
            [c.query_id for c in clicks],
            [c.item_id for c in clicks],
            np.array([c.event_time for c in clicks], np.int64),
            np.zeros(len(clicks), np.int64),
            np.arange(len(clicks)),
        )
        step = query_stage.step(arrays, self.queries, self.vectors, self.bundle)
        self.queries.apply(step.new)
        return step

    def item_step(self, clicks, vectors):
        times = np.array([c.event_time for c in clicks], np.int64)
        signals = item_stage.Signals([c.item_id for c in clicks], vectors, times, np.zeros(len(clicks), np.int64))
        step = item_stage.step(signals, self.items, self.bundle)
        self.items.apply(step.new)
        return step


@pytest.mark.parametrize("latest", [0, 3, 20], ids=["no latest items", "fewer than are kept", "more than are kept"])
def test_a_batch_of_the_query_stage_equals_one_click_at_a_time(store, latest):
    config = DATConfig(latest=latest, tower=TowerConfig(embedding_dim=4, hidden=(16,), output_dim=8))
    bundle, clicks = tiny_bundle(config=config), some_clicks(60)
    batch, single = Side(bundle, store), Side(bundle, store)
    together = batch.query_step(clicks).vectors
    apart = np.concatenate([single.query_step([click]).vectors for click in clicks])
    np.testing.assert_allclose(together, apart, atol=1e-5)
    order = [single.queries.rows([key])[0] for key in batch.queries.ids]
    for column in ("a", "folded", "clicks", "counters", "last_click", "history", "codes", "numbers"):
        np.testing.assert_allclose(batch.queries[column], single.queries[column][order], atol=1e-5, err_msg=column)


def test_a_batch_of_the_item_stage_equals_one_signal_at_a_time(store):
    bundle, clicks = tiny_bundle(), some_clicks(60)
    vectors = np.random.default_rng(3).normal(size=(60, 8)).astype(np.float32)
    batch, single = Side(bundle, store), Side(bundle, store)
    batch.item_step(clicks, vectors)
    for k, click in enumerate(clicks):
        single.item_step([click], vectors[[k]])
    order = [single.items.rows([key])[0] for key in batch.items.ids]
    for column in ("a", "folded", "clicks", "counters", "last_click", "vectors"):
        np.testing.assert_allclose(batch.items[column], single.items[column][order], atol=1e-5, err_msg=column)


def test_p_u_is_the_tower_on_what_was_known_before_the_click(store):
    bundle, (click,) = tiny_bundle(), some_clicks(1, queries=1, new=0)
    table, spec = bundle.queries, bundle.manifest.query
    fast = dense(
        spec, table.profile.take([0]), table.counters[:1], table.clicks[:1], table.last_click[:1], np.array([CUT_MS])
    )
    latest = newest(table.history[:1], table.clicks[:1], bundle.manifest.config.latest) + 1
    inputs = Inputs(np.array([1]), table.codes[:1], fast, latest)
    expected = represent(bundle.model.query_tower, inputs, table.a[:1])
    np.testing.assert_allclose(Side(bundle, store).query_step([click]).vectors, expected, atol=1e-6)


def test_p_u_reads_the_latest_items_newest_first_and_none_for_one_that_training_did_not_see(store):
    bundle = tiny_bundle()
    side, clicks = Side(bundle, store), some_clicks(4, queries=1, new=0)
    clicks = [
        click.model_copy(update={"item_id": item})
        for click, item in zip(clicks, ("i4", "i10", "i2", "i1"), strict=True)
    ]
    read = []
    forward = bundle.model.query_tower.forward
    bundle.model.query_tower.forward = lambda *inputs: read.append(inputs[4]) or forward(*inputs)
    side.query_step(clicks)
    before = [row + 1 for row in bundle.queries.history[0, :3][::-1]]  # three clicks before the cut; four are kept
    assert read[0][:, :5].tolist() == [
        [*before, 0, 0], [5, *before, 0], [0, 5, *before[:2], 0], [3, 0, 5, before[0], 0]
    ]  # fmt: skip


def test_p_v_is_the_tower_on_what_is_known_after_the_click(store):
    bundle, (click,) = tiny_bundle(), some_clicks(1, items=1, new=0)
    side = Side(bundle, store)
    step = side.item_step([click], np.ones((1, 8), np.float32))
    new, spec = step.new, bundle.manifest.item
    fast = dense(spec, bundle.items.profile.take([0]), new.counters, new.clicks, new.last_click, np.array([CUT_MS]))
    assert new.clicks[0] == bundle.items.clicks[0] + 1
    expected = represent(bundle.model.item_tower, Inputs(np.array([1]), bundle.items.codes[:1], fast), new.a)
    np.testing.assert_allclose(new.extra, expected, atol=1e-6)


def test_the_mimic_step_is_one_sgd_step_of_equation_2(store):
    """‖a_u − sg(p_v)‖² with learning rate α/2, by autograd."""
    memories = (0.4, 0.1)
    config = DATConfig(memories=memories, tower=TowerConfig(embedding_dim=4, hidden=(16,), output_dim=8))
    bundle, (click,) = tiny_bundle(config=config), some_clicks(1, queries=1, new=0)
    side = Side(bundle, store)
    side.queries["folded"][0] = 100  # past the first clicks, whose steps are larger
    p_v = torch.tensor(side.vectors.vectors[side.vectors.rows([click.item_id], 0)[0]])
    for m, alpha in enumerate(memories):
        a_u = torch.tensor(bundle.queries.a[0, m], requires_grad=True)
        optimiser = torch.optim.SGD([a_u], lr=alpha / 2)
        (a_u - p_v.detach()).pow(2).sum().backward()
        optimiser.step()
        side_step = Side(bundle, store)
        side_step.queries["folded"][0] = 100
        got = side_step.query_step([click]).new.a[0, m]
        np.testing.assert_allclose(got, a_u.detach().numpy(), atol=1e-6)


def test_new_ids_share_the_unknown_row_and_have_their_profile(store):
    bundle = tiny_bundle()
    side = Side(bundle, store)
    rows = side.queries.rows(["q7", "nobody"])
    side.queries.fill_profiles(rows)
    assert side.queries.tower_rows(rows).tolist() == [0, 0]
    known = encode(bundle.manifest.query, query_profiles(9), 9)
    np.testing.assert_array_equal(side.queries["codes"][rows[0]], known.codes[7])
    np.testing.assert_allclose(side.queries["numbers"][rows[0]], known.numbers[7])
    assert not side.queries["codes"][rows[1]].any()
    assert not side.queries["a"][rows].any()
    row = side.vectors.rows(["i10"], CUT_MS)
    profile = encode(bundle.manifest.item, item_profiles(12), 12).take([10])
    zero = np.zeros(1, np.int64)
    fast = dense(bundle.manifest.item, profile, np.zeros((1, 3), np.float32), zero, zero, np.array([CUT_MS]))
    expected = represent(bundle.model.item_tower, Inputs(zero, profile.codes, fast), np.zeros_like(bundle.items.a[:1]))
    np.testing.assert_allclose(side.vectors.vectors[row], expected, atol=1e-6)


def test_state_survives_the_changelog(store):
    bundle, clicks = tiny_bundle(), some_clicks(80)
    side, again = Side(bundle, store), Side(bundle, store)
    step = side.query_step(clicks)
    items = side.item_step(clicks, step.vectors)
    everything = np.arange(len(step.new.rows))
    record = query_stage.changelog(step.new, side.queries.ids, side.vectors.ids, everything)
    again.queries.apply(query_stage.restore(unpack(pack(record, "b")).rows, again.queries, again.vectors))
    record = item_stage.changelog(items.new, side.items.ids, np.arange(len(items.new.rows)))
    again.items.apply(item_stage.restore(unpack(pack(record, "b")).rows, again.items))
    for name, state in (("queries", side.queries), ("items", side.items)):
        other = getattr(again, name)
        order = [other.rows([key])[0] for key in state.ids]
        for column in ("a", "folded", "clicks", "counters", "last_click", "vectors" if name == "items" else None):
            if column:
                np.testing.assert_array_equal(state[column], other[column][order], err_msg=column)
    histories = [
        query_stage.unroll(s.queries["history"], s.queries["clicks"], s.vectors.ids).to_pylist() for s in (side, again)
    ]
    assert dict(zip(side.queries.ids, histories[0], strict=True)) == dict(
        zip(again.queries.ids, histories[1], strict=True)
    )


def test_history_keeps_the_latest_items_newest_last(store):
    bundle = tiny_bundle()
    side, clicks = Side(bundle, store), some_clicks(50, queries=1, new=0)
    side.query_step(clicks[:30])
    side.query_step(clicks[30:])
    (history,) = query_stage.unroll(
        side.queries["history"][:1], side.queries["clicks"][:1], side.vectors.ids
    ).to_pylist()
    assert history == [click.item_id for click in clicks[-4:]]


@pytest.mark.parametrize(
    ("settings", "queries", "items"),
    [({"amm": "off"}, 0, 0), ({"augmented": "query"}, 4, 0), ({"augmented": "item"}, 0, 4)],
)
def test_where_a_side_is_not_augmented_there_is_nothing_to_fold(store, settings, queries, items):
    config = DATConfig(**settings, tower=TowerConfig(embedding_dim=4, hidden=(16,), output_dim=8))
    bundle, clicks = tiny_bundle(config=config), some_clicks(20)
    side = Side(bundle, store)
    step = side.query_step(clicks)
    item_step = side.item_step(clicks, step.vectors)
    assert step.new.a.shape[1:] == (queries, 8)
    assert item_step.new.a.shape[1:] == (items, 8)
    assert side.items["clicks"].sum() == bundle.items.clicks.sum() + 20


def test_an_item_that_nobody_clicks_drifts_and_is_recomputed(store):
    bundle = tiny_bundle()
    state = Side(bundle, store).items
    state["as_of"][:] = CUT_MS
    every = np.arange(len(bundle.items.ids))
    assert not len(item_stage.drifted(every, state, CUT_MS, 0.01))
    later = CUT_MS + 3_600_000
    moved = item_stage.drifted(every, state, later, 0.01)
    active = bundle.items.clicks > 0
    assert active[moved].sum() == active.sum()  # their counters have halved
    new = item_stage.recompute(every, state, bundle, later)
    table, spec = bundle.items, bundle.manifest.item
    fast = dense(spec, table.profile, table.counters, table.clicks, table.last_click, np.full(len(every), later))
    expected = represent(bundle.model.item_tower, Inputs(every + 1, table.codes, fast), table.a)
    np.testing.assert_allclose(new.extra, expected, atol=1e-6)
    np.testing.assert_array_equal(new.a, table.a)
    state.apply(new)
    assert not len(item_stage.drifted(every, state, later, 0.01))
