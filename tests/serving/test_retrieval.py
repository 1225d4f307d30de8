"""Answers against brute force over the current vectors, and how they fall back."""

import threading
import time

import numpy as np
import pandas as pd
import pytest
import torch

from serving.clock import Clock, wall_ms
from serving.config import IndexConfig, ServingConfig
from serving.desk import Busy, Desk
from serving.features import OnlineFeatures, StoreDown
from serving.query_tower import ArrayTower
from serving.retrieval import Ask, Retriever
from serving.served import Served
from tests.serving.conftest import item_rows
from tests.tiny import CUT_MS, GENRES, TINY, tiny_bundle, tiny_store
from training.config import DATConfig, TowerConfig
from training.dat import represent
from training.features import Inputs, Profile, dense, encode

ITEMS = 60


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tiny_store(tmp_path_factory.mktemp("home"), queries=8, items=ITEMS)


@pytest.fixture(scope="module")
def bundle():
    return tiny_bundle(queries=6, items=ITEMS)


@pytest.fixture(params=[IndexConfig(kind="exact"), IndexConfig(kind="ivf", lists=4, probes=4)], ids=["exact", "lists"])
def retriever(store, bundle, request) -> Retriever:
    served = Served.of(bundle, ServingConfig(index=request.param, category_field=TINY.item.category))
    return Retriever(served, OnlineFeatures(store), Clock(lambda: served.corpus.newest_event, replay=True))


def write_state(store, query_id: str, clicks: int, a: np.ndarray, bundle: str, history: list[str]) -> None:
    """What the stream writes of a query."""
    at = pd.Timestamp.now("UTC")
    common = {"query_id": [query_id], "event_timestamp": [at], "created_timestamp": [at]}
    augmented = {**common, "a": [a.ravel().tolist()], "folded": [clicks], "bundle": [bundle]}
    store.write_to_online_store("query_augmented", pd.DataFrame(augmented))
    store.write_to_online_store("query_history", pd.DataFrame({**common, "history": [history]}))
    activity = {**common, "clicks": [clicks], "counters": [[float(clicks), 1.0]], "last_click": [CUT_MS + 1000]}
    store.write_to_online_store("query_activity", pd.DataFrame(activity))


def expected(
    bundle, vectors: np.ndarray, query: np.ndarray, out: set[int], n: int, only: set[int] | None = None
) -> list[int]:
    scores = vectors @ query
    order = [row for row in np.argsort(-scores) if row not in out and (only is None or row in only)]
    return order[:n]


@pytest.mark.parametrize("n", [1, 7, 60])
@pytest.mark.parametrize("genre", [None, "war"])
def test_answer_equals_brute_force_with_streamed_state(retriever, store, bundle, n, genre):
    rng = np.random.default_rng(n)
    a = rng.normal(size=bundle.queries.a.shape[1:]).astype(np.float32)
    write_state(store, "q3", 5, a, bundle.version, ["i1", "i2", "i9"])
    fresh = rng.normal(size=(10, bundle.items.vectors.shape[1])).astype(np.float32)
    retriever.served.corpus.apply(item_rows([f"i{k}" for k in range(10, 20)], fresh))
    vectors = bundle.items.vectors.copy()
    vectors[10:20] = fresh
    at = CUT_MS + 7_200_000
    spec = bundle.manifest.query
    profile = encode(spec, {"city": ["Oslo"], "age": [23.0]}, 1)
    fast = dense(
        spec, profile, np.array([[5, 1]], np.float32), np.array([5]), np.array([CUT_MS + 1000]), np.array([at])
    )
    latest = np.zeros((1, bundle.manifest.config.latest), np.int64)
    latest[0, :3] = 10, 3, 2  # i9, i2, i1: newest first
    inputs = Inputs(np.array([4]), profile.codes.astype(np.int64), fast, latest)
    query = represent(bundle.model.query_tower, inputs, a[None])[0]
    (answer,) = retriever.answer([Ask("q3", n=n, at_ms=at, category=genre)])
    only = None if genre is None else {k for k in range(ITEMS) if genre in (GENRES[k % 3], GENRES[(k + 1) % 3])}
    right = expected(bundle, vectors, query, {1, 2, 9}, n, only)
    assert [item.item_id for item in answer.items] == [f"i{row}" for row in right]
    np.testing.assert_allclose([item.score for item in answer.items], (vectors @ query)[right], atol=1e-4)
    assert (answer.source, answer.clicks, answer.folded, answer.fallback) == ("stream", 5, 5, None)
    assert answer.vector_age_ms == 7_199_000


def test_vector_of_another_bundle_is_not_used(retriever, store, bundle):
    write_state(store, "q4", 9, np.ones(bundle.queries.a.shape[1:]), "another", ["i1"])
    (answer,) = retriever.answer([Ask("q4", at_ms=CUT_MS)])
    assert answer.source == "bundle" and answer.folded == 3 and answer.clicks == 9
    states, _ = retriever.locate("q4")
    np.testing.assert_array_equal(states.a[0], bundle.queries.a[4])


def test_items_of_another_bundle_never_enter(retriever):
    before = len(retriever.served.corpus)
    assert retriever.served.corpus.apply(item_rows([], np.empty((0, 8)))) == []
    assert len(retriever.served.corpus) == before


def test_batch_equals_one_by_one(retriever):
    asks = [Ask(f"q{k}", n=5 + k, at_ms=CUT_MS, exclude_seen=k % 2 == 0) for k in range(8)] + [Ask("nobody", n=3)]
    together = retriever.answer(asks)
    for ask, answer in zip(asks, together, strict=True):
        (alone,) = retriever.answer([ask])
        assert [item.item_id for item in alone.items] == [item.item_id for item in answer.items]
        np.testing.assert_allclose([i.score for i in alone.items], [i.score for i in answer.items], atol=1e-5)


def test_new_query_of_the_catalogue_is_answered_by_its_profile(retriever, bundle):
    (answer,) = retriever.answer([Ask("q7", n=10, at_ms=CUT_MS)])  # the bundle ends at q5, the catalogue at q7
    assert (answer.source, answer.fallback, answer.clicks) == ("profile", None, 0)
    spec = bundle.manifest.query
    profile = encode(spec, {"city": ["Oslo"], "age": [27.0]}, 1)
    zero = np.zeros((1, *bundle.queries.a.shape[1:]), np.float32)
    fast = dense(spec, profile, np.zeros((1, 2), np.float32), np.zeros(1), np.zeros(1), np.array([CUT_MS]))
    none = np.zeros((1, bundle.manifest.config.latest), np.int64)
    inputs = Inputs(np.array([0]), profile.codes.astype(np.int64), fast, none)
    query = represent(bundle.model.query_tower, inputs, zero)[0]
    right = expected(bundle, bundle.items.vectors, query, set(), 10)
    assert [item.item_id for item in answer.items] == [f"i{row}" for row in right]


def test_unknown_query_gets_what_is_clicked_most_lately(retriever):
    hot = item_rows(["i7"], np.ones((1, 8)), clicks=50, last_click=CUT_MS + 60_000)
    retriever.served.corpus.apply(hot)
    (answer,) = retriever.answer([Ask("nobody-knows-me", n=5)])
    assert (answer.source, answer.fallback) == ("popularity", "unknown-query")
    assert answer.items[0].item_id == "i7" and answer.items[0].score == 1
    (filtered,) = retriever.answer([Ask("nobody-knows-me", n=60, category="war")])
    assert filtered.items and all(
        "war" in retriever.served.corpus.category_of(retriever.served.corpus.row(i.item_id)) for i in filtered.items
    )


def test_store_down_is_answered_and_said(bundle, tmp_path):
    store = tiny_store(tmp_path, queries=8, items=ITEMS)
    served = Served.of(bundle, ServingConfig())
    retriever = Retriever(served, OnlineFeatures(store), Clock(lambda: CUT_MS, replay=True))
    (before,) = retriever.answer([Ask("q2", n=5)])
    store._get_provider().online_store._conn.close()
    known, unknown = retriever.answer([Ask("q2", n=5), Ask("q7", n=5)])
    assert (known.source, known.fallback) == ("bundle", "store-down")
    assert [i.item_id for i in known.items] == [i.item_id for i in before.items]
    assert (unknown.source, unknown.fallback) == ("popularity", "store-down")
    assert len(unknown.items) == 5
    with pytest.raises(StoreDown):
        retriever.clicks("q2")


def test_sixty_held_answers_come_when_their_clicks_do(retriever, store, bundle):
    """Each of sixty callers waits for its own query's click; others are answered meanwhile."""
    desk = Desk(retriever, ServingConfig())
    a = np.zeros(bundle.queries.a.shape[1:])
    try:
        names = [f"held-{time.monotonic_ns()}-{k}" for k in range(60)]
        held = [desk.submit(Ask(name, n=5, wait_for_clicks=1, timeout_s=20)) for name in names]
        began = time.perf_counter()
        assert desk.retrieve(Ask("q0", n=5)).reached is None
        assert time.perf_counter() - began < 1
        assert not any(future.done() for future in held)

        def click() -> None:
            for name in names:
                write_state(store, name, 1, a, bundle.version, ["i1"])

        writer = threading.Thread(target=click)
        writer.start()
        answers = [future.result(20) for future in held]
        writer.join()
        assert all(answer.reached and answer.clicks == 1 and answer.source == "stream" for answer in answers)
        assert all("i1" not in {item.item_id for item in answer.items} for answer in answers)
        assert desk.pending == 0
    finally:
        desk.close()


def test_a_wait_that_is_not_reached_ends_with_its_timeout(retriever):
    desk = Desk(retriever, ServingConfig())
    began = time.perf_counter()
    answer = desk.retrieve(Ask("q0", n=5, wait_for_clicks=10**6, timeout_s=0.3))
    assert answer.reached is False and len(answer.items) == 5
    assert 0.25 < time.perf_counter() - began < 2
    desk.close()


def test_a_full_desk_refuses_and_recovers(retriever):
    desk = Desk(retriever, ServingConfig(max_pending=3))
    held = [desk.submit(Ask("q0", wait_for_clicks=10**6, timeout_s=30)) for _ in range(3)]
    with pytest.raises(Busy):
        desk.submit(Ask("q1"))
    for future in held:
        future.cancel()  # the callers went away
    assert desk.retrieve(Ask("q1", n=3)).items
    desk.close()


@pytest.mark.parametrize("shortcut", [True, False])
@pytest.mark.parametrize("head", ["linear", "relu"])
def test_the_tower_on_arrays_is_the_tower(head, shortcut):
    shape = TowerConfig(embedding_dim=4, hidden=(16, 12), output_dim=8, head=head, shortcut=shortcut)
    config = DATConfig(tower=shape)
    bundle = tiny_bundle(queries=40, items=ITEMS, config=config)
    for tower, table, spec in (
        (bundle.model.query_tower, bundle.queries, bundle.manifest.query),
        (bundle.model.item_tower, bundle.items, bundle.manifest.item),
    ):
        fast = dense(spec, table.profile, table.counters, table.clicks, table.last_click, np.full(len(table.a), CUT_MS))
        latest = None
        if tower.latest is not None:
            latest = np.random.default_rng(0).integers(0, ITEMS + 1, (len(table.a), config.latest))
            latest[:3] = 0
        inputs = Inputs(np.arange(len(table.a)), table.codes.astype(np.int64), fast, latest)
        for name, weights in tower.named_parameters():
            if not name.startswith(("ids", "features", "latest.items")):  # some begin as zeros, and would not be missed
                torch.nn.init.normal_(weights, std=0.5)
        right = represent(tower, inputs, table.a)
        np.testing.assert_allclose(ArrayTower(tower).represent(inputs, table.a), right, atol=2e-6)


def test_data_time_follows_the_newest_event_and_wall_time_the_wall():
    newest = [CUT_MS]
    replay = Clock.choose("auto", lambda: newest[0], CUT_MS, replay_after_days=180)
    assert replay.replay and replay.now_ms() == CUT_MS
    newest[0] = CUT_MS + 5
    assert replay.now_ms() == CUT_MS + 5
    live = Clock.choose("auto", lambda: newest[0], wall_ms() - 86_400_000, replay_after_days=180)
    assert not live.replay and abs(live.now_ms() - wall_ms()) < 1000


def test_history_ring_is_read_oldest_first(bundle, store):
    from serving.query_state import _ring

    assert _ring(np.array([4, 5, 2, 3]), 6).tolist() == [2, 3, 4, 5]
    assert _ring(np.array([7, 8, -1, -1]), 2).tolist() == [7, 8]
    assert _ring(np.array([9, 8, 7, 6]), 4).tolist() == [9, 8, 7, 6]
    assert _ring(np.empty(0, np.int32), 3).tolist() == []
    assert isinstance(bundle.queries.profile, Profile)
