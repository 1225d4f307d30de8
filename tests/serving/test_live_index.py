"""The live index against a plain dictionary and exact search."""

import subprocess
import sys
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.config import IndexConfig
from serving.live_index import LiveIndex

D = 8
EXACT = IndexConfig(kind="exact")
# As many probes as lists: inverted lists then promise what exact search promises.
LISTS = IndexConfig(kind="ivf", lists=4, probes=4, write_batch=3, rebuild_after=1e9)


def unit(rng: np.random.Generator, n: int) -> np.ndarray:
    vectors = rng.normal(size=(n, D)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def check(index: LiveIndex, truth: dict[int, np.ndarray], query: np.ndarray, n: int, out=(), only=None) -> None:
    """The index's answer is the n best of the dictionary: right rows, current scores, none twice."""
    out_rows = np.array(sorted(out), np.int64)
    only_rows = None if only is None else np.array(sorted(only), np.int64)
    rows, scores = index.search(query[None], n, [out_rows], [only_rows])
    rows, scores = rows[0][rows[0] >= 0], scores[0][rows[0] >= 0]
    allowed = [row for row in truth if row not in out and (only is None or row in only)]
    assert len(rows) == len(set(rows.tolist())) == min(n, len(allowed))
    assert set(rows.tolist()) <= set(allowed)
    current = np.array([truth[row] @ query for row in rows.tolist()], np.float32)
    np.testing.assert_allclose(scores, current, atol=1e-5)  # a stale vector would score otherwise
    best = np.sort([truth[row] @ query for row in allowed])[::-1][: len(rows)]
    np.testing.assert_allclose(scores, best, atol=1e-5)


steps = st.lists(
    st.one_of(
        st.tuples(st.just("upsert"), st.lists(st.integers(0, 40), min_size=1, max_size=8)),
        st.tuples(st.just("delete"), st.lists(st.integers(0, 45), min_size=1, max_size=8)),
        st.tuples(st.just("rebuild"), st.just([])),
        st.tuples(st.just("search"), st.lists(st.integers(0, 40), max_size=8)),
    ),
    max_size=30,
)


@pytest.mark.parametrize("config", [EXACT, LISTS], ids=["exact", "lists"])
@given(steps=steps, start=st.integers(1, 30), seed=st.integers(0, 2**16))
@settings(max_examples=60, deadline=None)
def test_any_sequence_of_changes_equals_a_dictionary(config, steps, start, seed):
    rng = np.random.default_rng(seed)
    vectors = unit(rng, start)
    index, truth = LiveIndex(vectors, config), dict(enumerate(vectors))
    for step, rows in steps:
        if step == "upsert":
            fresh = unit(rng, len(rows))
            index.upsert(rows, fresh)
            truth.update(zip(rows, fresh, strict=True))
        elif step == "delete":
            index.delete(rows)
            for row in rows:
                truth.pop(row, None)
        elif step == "rebuild" and config is LISTS and truth:
            index.rebuild()
        else:
            check(index, truth, unit(rng, 1)[0], int(rng.integers(1, 50)), out=set(rows))
            check(index, truth, unit(rng, 1)[0], int(rng.integers(1, 50)), only=set(rows))
    check(index, truth, unit(rng, 1)[0], 50)
    assert len(index) == len(truth)
    assert sorted(truth) == index.rows().tolist()


@pytest.mark.parametrize("config", [EXACT, IndexConfig(kind="ivf", lists=8, probes=8, rebuild_after=0.2)])
def test_searches_stay_right_while_two_threads_write_and_lists_are_rebuilt(config):
    """Every row has one marked direction at a time, so a doubled or a stale row shows at once."""
    rng = np.random.default_rng(0)
    vectors = unit(rng, 400)
    index = LiveIndex(vectors, config)
    query = unit(rng, 1)[0]
    problems: list[str] = []
    stop = threading.Event()

    def write(first: int, seed: int) -> None:
        own = np.random.default_rng(seed)
        rows = np.arange(first, 400, 2)
        for _ in range(60):
            picked = own.choice(rows, 20, replace=False)
            fresh = unit(own, 20)
            index.upsert(picked, fresh)
            if not np.allclose(index.vectors(picked), fresh):
                problems.append("an update was not visible when the call returned")
            index.delete(picked[:3])
            found, _ = index.search(fresh[:1], 400)
            if set(found[0].tolist()) & set(picked[:3].tolist()):
                problems.append("a deleted row was found")
            index.upsert(picked[:3], fresh[:3])

    def read() -> None:
        while not stop.is_set():
            rows, _ = index.search(query[None], 400)
            there = rows[0][rows[0] >= 0]
            if len(there) != len(set(there.tolist())):
                problems.append("a row came back twice")
            if len(there) < 400 - 6:
                problems.append(f"only {len(there)} rows came back")

    threads = [threading.Thread(target=write, args=(k, k)) for k in range(2)]
    readers = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads + readers:
        thread.start()
    for thread in threads:
        thread.join()
    stop.set()
    for thread in readers:
        thread.join()
    assert not problems, problems[:3]
    index.rebuild() if index.kind == "ivf" else None
    check(index, dict(enumerate(index.vectors(np.arange(400)))), query, 400)


def test_growing_past_the_limit_builds_lists_in_the_background():
    rng = np.random.default_rng(1)
    index = LiveIndex(unit(rng, 50), IndexConfig(exact_up_to=100, probes=64))
    assert index.kind == "exact"
    vectors = unit(rng, 500)
    index.upsert(np.arange(500), vectors)
    index._thread.join(20)
    assert index.kind == "ivf"
    check(index, dict(enumerate(vectors)), unit(rng, 1)[0], 30, out=set(range(0, 500, 7)))


def test_a_mapped_file_is_never_written_to(tmp_path):
    rng = np.random.default_rng(3)
    before = unit(rng, 20)
    before.tofile(tmp_path / "vectors")
    mapped = np.memmap(tmp_path / "vectors", np.float32, "c", 0, (20, D))
    index, truth = LiveIndex(mapped, EXACT), dict(enumerate(before.copy()))
    truth[3] = unit(rng, 1)[0]
    index.upsert([3], truth[3][None])
    check(index, truth, truth[3], 20)
    np.testing.assert_array_equal(mapped, before)
    np.testing.assert_array_equal(np.fromfile(tmp_path / "vectors", np.float32).reshape(20, D), before)


def test_recall_is_kept_when_most_rows_move_away_from_their_lists():
    """Lists are learnt from one cloud, then rows move to another: what sufficed before no longer does."""
    rng = np.random.default_rng(4)
    queries = unit(rng, 100)
    tight = queries[rng.integers(0, 100, 20_000)] + 0.05 * rng.normal(size=(20_000, D)).astype(np.float32)
    config = IndexConfig(kind="ivf", rebuild_after=1e9, calibrate_after=0.2)
    index = LiveIndex(tight / np.linalg.norm(tight, axis=1, keepdims=True), config, queries)
    probes = index.probes
    index.upsert(np.arange(15_000), unit(rng, 15_000))
    index._thread.join(60)
    index.upsert([0], unit(rng, 1))
    index._thread.join(60)
    assert index.probes > probes
    exact = LiveIndex(index.vectors(index.rows()), EXACT)
    found, right = index.search(queries, 100)[0], exact.search(queries, 100)[0]
    recall = np.mean([len(set(a) & set(b)) / 100 for a, b in zip(found.tolist(), right.tolist(), strict=True)])
    assert recall >= 0.97


def test_default_probes_find_nearly_everything_in_a_clustered_corpus():
    rng = np.random.default_rng(2)
    centers = unit(rng, 300)
    vectors = centers[rng.integers(0, 300, 30_000)] + 0.15 * rng.normal(size=(30_000, D)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    lists, exact = LiveIndex(vectors, IndexConfig(kind="ivf")), LiveIndex(vectors, EXACT)
    queries = centers[:50]
    found, right = lists.search(queries, 100)[0], exact.search(queries, 100)[0]
    recall = np.mean([len(set(a) & set(b)) / 100 for a, b in zip(found.tolist(), right.tolist(), strict=True)])
    assert recall >= 0.98
    seen = [np.array(row[:700], np.int64) for row in right]
    assert not any(set(a) & set(s) for a, s in zip(lists.search(queries, 100, seen)[0].tolist(), seen, strict=True))


def test_a_process_that_ends_waits_for_the_rebuild_of_its_index():
    """Cut off within Faiss by the interpreter's end, the rebuild would abort the process: status 134 for a good run."""
    code = """
import atexit, threading, time
import numpy as np
from serving.config import IndexConfig
from serving.live_index import LiveIndex
class Slow(LiveIndex):
    def rebuild(self):
        time.sleep(1)
        super().rebuild()
vectors = np.random.default_rng(0).standard_normal((2_000, 32)).astype(np.float32)
index = Slow(vectors, IndexConfig(kind="ivf"))
index.upsert(np.arange(2_000), vectors)
print(len(threading.enumerate()))
atexit.register(lambda: print(len(threading.enumerate())))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stdout.split()) == (0, ["2", "1"]), done.stderr
