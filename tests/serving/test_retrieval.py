"""Answers against brute force over the current vectors, and how they fall back."""

import numpy as np
import pandas as pd
import pytest

from model.features import Inputs, dense, encode
from model.memory import gap_inputs
from model.settings.serving import IndexConfig, ServingConfig
from serving.clock import Clock, wall_ms
from serving.features import FeatureNames, SdkReader
from serving.filters import Condition, UnknownName
from serving.retrieval import Answer, Ask, Retriever
from serving.snapshot import Snapshot
from tests.serving.conftest import item_rows
from tests.tiny import CUT_MS, GENRES, SMALL_AMM, WIDTH, tiny_bundle, tiny_store

ITEMS = 60


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tiny_store(tmp_path_factory.mktemp("home"), queries=8, items=ITEMS)


@pytest.fixture(scope="module")
def bundle():
    return tiny_bundle(queries=6, items=ITEMS)


@pytest.fixture(params=[IndexConfig(kind="exact"), IndexConfig(kind="ivf", lists=4, probes=4)], ids=["exact", "lists"])
def retriever(store, bundle, request) -> "Reading":
    snapshot = Snapshot.of(bundle, ServingConfig(index=request.param))
    return Reading(snapshot, store)


class Reading(Retriever):
    """A retriever that reads the store by itself."""

    def __init__(self, snapshot: Snapshot, store):
        super().__init__(snapshot, Clock(lambda: snapshot.corpus.newest_event, replay=True))
        self.reader, self.names = SdkReader(store), FeatureNames(store)

    def ask(self, *asks: Ask) -> list[Answer]:
        return self.answer(asks, self.reader.read(self.names.query, "query_id", [ask.query_id for ask in asks]))


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
    retriever.snapshot.corpus.apply(item_rows([f"i{k}" for k in range(10, 20)], fresh))
    vectors = bundle.items.vectors.copy()
    vectors[10:20] = fresh
    at = CUT_MS + 7_200_000
    spec = bundle.manifest.query
    profile = encode(spec, {"city": ["Oslo"], "age": [23.0]}, 1)
    fast = dense(
        spec, profile, np.array([[5, 1]], np.float32), np.array([5]), np.array([CUT_MS + 1000]), np.array([at])
    )
    gap = gap_inputs(np.array([CUT_MS + 1000]), np.array([at]))
    inputs = Inputs(np.array([4]), profile.codes.astype(np.int64), fast, gap=gap)
    query = bundle.towers.query(inputs, a[None])[0]
    where = None if genre is None else {"genres": Condition(any=[genre])}
    (answer,) = retriever.ask(Ask("q3", n=n, at_ms=at, where=where))
    only = None if genre is None else {k for k in range(ITEMS) if genre in (GENRES[k % 3], GENRES[(k + 1) % 3])}
    right = expected(bundle, vectors, query, {1, 2, 9}, n, only)
    assert answer.items == [f"i{row}" for row in right]
    np.testing.assert_allclose(answer.scores, (vectors @ query)[right], atol=1e-4)
    assert (answer.source, answer.clicks, answer.update_count, answer.fallback) == ("stream", 5, 5, None)
    assert answer.vector_age_ms == 7_199_000


def test_vector_of_another_bundle_is_not_used(retriever, store, bundle):
    write_state(store, "q4", 9, np.ones(bundle.queries.a.shape[1:]), "another", ["i1"])
    (answer,) = retriever.ask(Ask("q4", at_ms=CUT_MS))
    assert answer.source == "bundle" and answer.update_count == 3 and answer.clicks == 9
    columns = retriever.reader.read(retriever.names.query, "query_id", ["q4"])
    states = retriever.states(retriever.snapshot, ["q4"], columns)
    np.testing.assert_array_equal(states.a[0], bundle.queries.a[4])


def test_queries_and_items_that_came_after_training_are_answered_for(store):
    bundle = tiny_bundle(queries=6, items=ITEMS, config=SMALL_AMM)
    (query,), (item,) = bundle.queries.add(["late"]), bundle.items.add(["late item"])
    bundle.queries.recent_items[query, 0], bundle.queries.clicks[query] = item, 1
    retriever = Reading(Snapshot.of(bundle, ServingConfig()), store)
    (late, known) = retriever.ask(Ask("late", n=5, at_ms=CUT_MS), Ask("q1", n=5, at_ms=CUT_MS))
    assert len(late.items) == len(known.items) == 5


def test_items_of_another_bundle_never_enter(retriever):
    before = len(retriever.snapshot.corpus)
    retriever.snapshot.corpus.apply(item_rows([], np.empty((0, WIDTH))))
    assert len(retriever.snapshot.corpus) == before


@pytest.mark.parametrize("excludes", [True, False])
def test_what_was_clicked_is_left_out_as_in_training_unless_the_question_says(retriever, bundle, monkeypatch, excludes):
    """A model that was evaluated with repeats would be served worse than it was measured."""
    monkeypatch.setattr(bundle.manifest, "excludes_seen", excludes)
    clicked = {bundle.items.ids[row] for row in bundle.queries.recent_items[0] if row >= 0}
    for asked, left_out in ((None, excludes), (True, True), (False, False)):
        (answer,) = retriever.ask(Ask("q0", n=len(bundle.items), at_ms=CUT_MS, exclude_seen=asked))
        assert clicked.isdisjoint(answer.items) is left_out


def test_batch_equals_one_by_one(retriever):
    asks = [Ask(f"q{k}", n=5 + k, at_ms=CUT_MS, exclude_seen=k % 2 == 0) for k in range(8)] + [Ask("nobody", n=3)]
    together = retriever.ask(*asks)
    for ask, answer in zip(asks, together, strict=True):
        (alone,) = retriever.ask(ask)
        assert alone.items == answer.items
        np.testing.assert_allclose(alone.scores, answer.scores, atol=1e-5)


def test_new_query_of_the_catalogue_is_answered_by_its_profile(retriever, bundle):
    (answer,) = retriever.ask(Ask("q7", n=10, at_ms=CUT_MS))  # the bundle ends at q5, the catalogue at q7
    assert (answer.source, answer.fallback, answer.clicks) == ("profile", None, 0)
    spec = bundle.manifest.query
    profile = encode(spec, {"city": ["Oslo"], "age": [27.0]}, 1)
    zero = np.zeros((1, *bundle.queries.a.shape[1:]), np.float32)
    fast = dense(spec, profile, np.zeros((1, 2), np.float32), np.zeros(1), np.zeros(1), np.array([CUT_MS]))
    gap = gap_inputs(np.zeros(1, np.int64), np.array([CUT_MS]))
    inputs = Inputs(np.array([0]), profile.codes.astype(np.int64), fast, gap=gap)
    query = bundle.towers.query(inputs, zero)[0]
    right = expected(bundle, bundle.items.vectors, query, set(), 10)
    assert answer.items == [f"i{row}" for row in right]


def test_unknown_query_gets_what_is_clicked_most_lately(retriever):
    hot = item_rows(["i7"], np.ones((1, WIDTH)), clicks=50, last_click=CUT_MS + 60_000)
    retriever.snapshot.corpus.apply(hot)
    (answer,) = retriever.ask(Ask("nobody-knows-me", n=5))
    assert (answer.source, answer.fallback) == ("popularity", "unknown-query")
    assert answer.items[0] == "i7" and answer.scores[0] == 1
    (filtered,) = retriever.ask(Ask("nobody-knows-me", n=60, where={"genres": Condition(any=["war"])}))
    assert filtered.items and all(
        "war" in retriever.snapshot.corpus.category_of(retriever.snapshot.corpus.row(item)) for item in filtered.items
    )


def test_a_batch_without_the_store_is_answered_as_of_the_cut_and_says_so(retriever):
    (before,) = retriever.ask(Ask("q2", n=5))
    known, unknown = retriever.answer([Ask("q2", n=5), Ask("q7", n=5)], None)
    assert (known.source, known.fallback) == ("bundle", "store-down")
    assert known.items == before.items
    assert (unknown.source, unknown.fallback) == ("popularity", "store-down")
    assert len(unknown.items) == 5


def test_names_that_no_item_has_are_refused_and_the_known_ones_named(retriever):
    for where, known in (
        ({"genre": Condition(any=["war"])}, "genres"),
        ({"genres": Condition(any=["War"])}, "war"),
        ({"genres": Condition(lt=5)}, "released"),
    ):
        with pytest.raises(UnknownName, match=known):
            retriever.ask(Ask("q2", where=where))


def test_data_time_follows_the_newest_event_and_wall_time_the_wall():
    newest = [CUT_MS]
    replay = Clock.choose("auto", lambda: newest[0], CUT_MS, replay_after_days=180)
    assert replay.replay and replay.now_ms() == CUT_MS
    newest[0] = CUT_MS + 5
    assert replay.now_ms() == CUT_MS + 5
    live = Clock.choose("auto", lambda: newest[0], wall_ms() - 86_400_000, replay_after_days=180)
    assert not live.replay and abs(live.now_ms() - wall_ms()) < 1000
