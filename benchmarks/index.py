"""The live index against raw Faiss, at any size: ``dat bench index --size 3561498 --json index.json``.

The vectors are a trained model's, scaled up: each new one lies between an item and one of its nearest neighbours, with
a little noise, so that the corpus keeps the model's clusters. The queries are the model's own. Without ``--home`` the
model is trained first, for a minute, on MovieLens-100K.

In the end, and whatever the speed, the index must be right: after a million random upserts and deletes its answers are
those of exact search over a plain dictionary, at the promised recall, with no stale, no deleted and no doubled item.
``streaming``: the steps of the streaming track of the NeurIPS'23 big-ann benchmark (insert, delete, search), with the
recall at each.
"""

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before Faiss: threads that spin take the cores from others
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import faiss  # noqa: E402
import numpy as np
import typer

from benchmarks._bundles import trained_bundle
from cli.evidence import write_evidence
from cli.options import Json
from model.bundle_store import BundleStore
from model.settings.serving import IndexConfig
from serving.index.live_index import LiveIndex
from serving.index.subset import Subset

Array = np.ndarray
Search = Callable[[Array], tuple[Array, Array]]
Say = Callable[..., None]
N = 100
CHANGES = 1_000_000  # of the check
SELECTIVITIES = (0.01, 0.1, 0.5)


def scale_up(vectors: Array, size: int, rng: np.random.Generator, neighbours: int = 10, noise: float = 0.05) -> Array:
    """``size`` vectors [size, d] spread, and as long, as the given ones [n, d] are."""
    exact = faiss.IndexFlatIP(vectors.shape[1])
    exact.add(vectors)
    _, near = exact.search(vectors, min(neighbours + 1, len(vectors)))
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    spread = noise * float(length.mean())
    made = np.empty((size, vectors.shape[1]), np.float32)
    for start in range(0, size, 1 << 18):
        part = slice(start, min(start + (1 << 18), size))
        count = part.stop - part.start
        one = rng.integers(0, len(vectors), count)
        other = near[one, rng.integers(0, near.shape[1], count)]
        share = rng.random((count, 1), np.float32)
        mixed = vectors[one] * (1 - share) + vectors[other] * share
        mixed += spread * rng.normal(size=mixed.shape).astype(np.float32)
        made[part] = mixed * (length[one] / np.linalg.norm(mixed, axis=1, keepdims=True))
    return made


def recall(found: Array, right: Array) -> float:
    """Share of the exact top N that was found: rows [Q, N] each."""
    return float(np.mean([len(np.intersect1d(a, b)) / len(b) for a, b in zip(found, right, strict=True)]))


def exact(queries: Array, vectors: Array, n: int = N) -> Array:
    """Rows [Q, n] of the best vectors."""
    return faiss.knn(queries, vectors, n, metric=faiss.METRIC_INNER_PRODUCT)[1]


def one_by_one(index: LiveIndex, queries: Array, n: int = N, allow: Subset | None = None) -> Array:
    return np.concatenate([index.search(query[None], n, None, [allow])[0] for query in queries])


def latencies(search: Search, queries: Array, seconds: float = 5.0) -> dict[str, float]:
    """p50 and p99 in ms of one query at a time, on one thread, for so long."""
    took, began, k = [], time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        start = time.perf_counter()
        search(queries[k % len(queries)][None])
        took.append(time.perf_counter() - start)
        k += 1
    p50, p99 = np.percentile(took, [50, 99]) * 1000
    return {"p50_ms": round(float(p50), 4), "p99_ms": round(float(p99), 4)}


def in_turns(searches: list[Search], queries: Array) -> list[float]:
    """The p50 in ms of some ways to search, which take turns: what else the machine does falls on all alike."""
    took = np.empty((len(searches), len(queries)))
    for q, query in enumerate(queries):
        for k, search in enumerate(searches):
            start = time.perf_counter()
            search(query[None])
            took[k, q] = time.perf_counter() - start
    return np.round(np.percentile(took, 50, axis=1) * 1000, 4).tolist()


def cheapest(
    settings: list[int], apply: Callable[[int], None], search: Search, queries: Array, right: Array, goal: float
) -> tuple[int, float]:
    """The first setting whose recall is at least ``goal``, else the last; and its recall."""
    for setting in settings:
        apply(setting)
        reached = recall(np.concatenate([search(query[None])[1] for query in queries]), right)
        if reached >= goal:
            break
    return setting, reached


def resident_bytes() -> int:
    """Memory that this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def while_updating(index: LiveIndex, queries: Array, per_second: int, rng: np.random.Generator) -> dict[str, float]:
    """Search latencies while a thread writes ``per_second`` rows a second, and how many it did write."""
    stop, written = threading.Event(), 0
    fresh = scale_up(index.vectors(rng.integers(0, len(index), 5_000)), 50_000, rng)

    def write() -> None:
        nonlocal written
        own = np.random.default_rng(1)
        began = time.perf_counter()
        while not stop.is_set():
            count = per_second // 50
            index.upsert(own.integers(0, len(index), count), fresh[own.integers(0, len(fresh), count)])
            written += count
            stop.wait(max(0.0, written / per_second - (time.perf_counter() - began)))

    writer = threading.Thread(target=write)
    began = time.perf_counter()
    writer.start()
    found = latencies(lambda query: index.search(query, N), queries, 10)
    stop.set()
    writer.join()
    return {**found, "upserts_per_s": round(written / (time.perf_counter() - began))}


def filtered(index: LiveIndex, corpus: Array, queries: Array, rng: np.random.Generator) -> dict[str, dict[str, float]]:
    """By the share of the rows that a filter leaves: recall of the exact filtered answer, and times beside unfiltered.

    Half of the filters leave rows at random. The others leave a region of the space (``region_recall100``), so that
    for most queries the rows that match lie far away.
    """
    report = {}
    towards = corpus @ corpus[0]
    for share in SELECTIVITIES:
        random = np.flatnonzero(rng.random(len(corpus)) < share)
        region = np.flatnonzero(towards >= np.quantile(towards, 1 - share))
        found = {}
        for name, rows in (("recall100", random), ("region_recall100", region)):
            right = rows[exact(queries, corpus[rows])]
            found[name] = round(recall(one_by_one(index, queries, N, Subset(rows)), right), 4)
        subset = Subset(random)
        with_filter: Search = partial(index.search, n=N, allow=[subset])
        took, without = in_turns([with_filter, lambda q: index.search(q, N)], queries)
        report[str(share)] = {**found, "p50_ms": took, "unfiltered_p50_ms": without}
    return report


def runbook(size: int, steps: int = 10) -> Iterator[tuple[str, int, int]]:
    """The order of the track's runbooks: the corpus comes in ``steps`` parts, each followed by a search; from the
    middle on, the oldest part goes away as well. (What, first, last) of rows."""
    part = size // steps
    for k in range(steps):
        yield "insert", k * part, (k + 1) * part
        if k >= steps // 2:
            first = (k - steps // 2) * part
            yield "delete", first, first + part
        yield "search", 0, 0


def measure_streaming(corpus: Array, queries: Array, calibrate: Array) -> list[dict[str, float]]:
    """An index that begins empty goes through the runbook."""
    index, alive, report = LiveIndex(corpus[:0], IndexConfig(), calibrate), np.zeros(len(corpus), bool), []
    for what, first, last in runbook(len(corpus)):
        rows = np.arange(first, last)
        if what == "search":
            if index._thread is not None:
                index._thread.join()  # the track searches when the inserts are done
            current = np.flatnonzero(alive)
            right = current[exact(queries, corpus[current])]
            report.append({"rows": len(current), "recall100": round(recall(one_by_one(index, queries), right), 4)})
        elif what == "insert":
            index.upsert(rows, corpus[rows])
            alive[rows] = True
        else:
            index.delete(rows)
            alive[rows] = False
    return report


def check(index: LiveIndex, pool: Array, size: int, queries: Array, rng: np.random.Generator) -> dict[str, float | int]:
    """Random upserts and deletes, then the index against exact search over a plain dictionary.

    Args:
        pool: Vectors; the index holds the first ``size`` of them as rows 0…size−1.

    Returns:
        recall · among all that was found: ``stale`` items, whose score is not their current vector's, ``deleted`` and
        ``doubled`` ones · how many items are ``missing`` or too many in the index.
    """
    truth = dict(enumerate(range(size)))  # row → its vector's place in the pool
    newest, changed = size, 0
    while changed < CHANGES:
        rows = rng.integers(0, newest, 1_000)
        if rng.random() < 0.2:
            index.delete(rows)
            for row in rows.tolist():
                truth.pop(row, None)
        else:
            rows[:100] = np.arange(newest, newest + 100)  # some are new
            newest += 100
            places = rng.integers(0, len(pool), len(rows))
            index.upsert(rows, pool[places])
            truth.update(zip(rows.tolist(), places.tolist(), strict=True))
        changed += len(rows)
    rows = np.fromiter(truth, np.int64, len(truth))
    current = pool[np.fromiter(truth.values(), np.int64, len(truth))]
    right = rows[exact(queries, current)]
    found, scores = (np.concatenate(part) for part in zip(*(index.search(q[None], N) for q in queries), strict=True))
    stale = deleted = 0
    for query, row, score in zip(queries.repeat(N, 0), found.ravel().tolist(), scores.ravel().tolist(), strict=True):
        place = truth.get(row)
        deleted += place is None
        stale += place is not None and abs(float(pool[place] @ query) - score) > 1e-4 * max(1, abs(score))
    return {
        "changes": changed,
        "recall100": round(recall(found, right), 4),
        "stale": stale,
        "deleted": deleted,
        "doubled": sum(N - len(set(row)) for row in found.tolist()),
        "missing": abs(len(index) - len(truth)),
    }


def measure_live(corpus: Array, calibrate: Array, queries: Array, rng: np.random.Generator, say: Say) -> float:
    """The live index, then the Faiss lists inside it by themselves; returns the recall that they are compared at.

    Args:
        calibrate: Queries that it is calibrated on; recall is measured on others.
    """
    size = len(corpus)
    before, began = resident_bytes(), time.perf_counter()
    index = LiveIndex(corpus, IndexConfig(), calibrate)
    say(build_s=round(time.perf_counter() - began, 1), bytes=resident_bytes() - before)
    deep = exact(queries, corpus, 1_000)
    right = deep[:, :N]
    reached = recall(one_by_one(index, queries), right)
    goal = reached - 0.002  # "equal recall" for the others
    say(recall100=round(reached, 4), recall1000=round(recall(one_by_one(index, queries, 1_000), deep), 4))
    assert index.lists is not None
    say(lists=len(index.lists), probes=index.probes, **latencies(lambda query: index.search(query, N), queries))
    raw = index.lists.faiss
    probes = [*range(1, 16), *range(16, 64, 4), *range(64, 1024, 16)]
    setting, reached = cheapest(
        probes, lambda probes: setattr(raw, "nprobe", probes), lambda q: raw.search(q, N), queries, right, goal
    )
    times = latencies(lambda query: raw.search(query, N), queries)
    say(ivf_probes=setting, ivf_recall100=round(reached, 4), **{f"ivf_{k}": v for k, v in times.items()})
    say(filtered=filtered(index, corpus, queries, rng))
    rows, fresh = rng.integers(0, len(corpus), 200_000), corpus[rng.integers(0, len(corpus), 200_000)]
    began = time.perf_counter()
    index.upsert(rows, fresh)
    say(upserts_per_s=round(len(np.unique(rows)) / (time.perf_counter() - began)))
    busy = while_updating(index, queries, 20_000, rng)
    say(p99_updating_ms=busy["p99_ms"], **{f"at_20000_upserts_{k}": v for k, v in busy.items()})
    right = exact(queries, index.vectors(np.arange(size)))
    say(after_updates_recall100=round(recall(one_by_one(index, queries), right), 4))
    say(**{f"check_{k}": v for k, v in check(index, index.vectors(np.arange(size)), size, queries, rng).items()})
    return goal


def measure_hnsw(corpus: Array, queries: Array, goal: float, say: Say) -> None:
    """Raw HNSW, which cannot be updated, at the same recall."""
    graph = faiss.IndexHNSWFlat(corpus.shape[1], 16, faiss.METRIC_INNER_PRODUCT)
    faiss.omp_set_num_threads(os.cpu_count() or 1)
    began = time.perf_counter()
    graph.add(corpus)
    say(hnsw_build_s=round(time.perf_counter() - began, 1))
    faiss.omp_set_num_threads(1)
    setting, reached = cheapest(
        [100, 150, 200, 300, 400, 600, 800, 1200, 1600, 2400, 3200],
        lambda ef: setattr(graph.hnsw, "efSearch", ef),
        lambda q: graph.search(q, N), queries, exact(queries, corpus), goal,
    )  # fmt: skip
    times = latencies(lambda query: graph.search(query, N), queries)
    say(hnsw_ef=setting, hnsw_recall100=round(reached, 4), **{f"hnsw_{k}": v for k, v in times.items()})


def main(
    size: Annotated[int, typer.Option(min=60_000, help="Items in the corpus.")] = 1_000_000,
    home: Annotated[Path | None, typer.Option(help="A home whose bundle in service is scaled up.")] = None,
    hnsw: Annotated[bool, typer.Option(help="Measure HNSW too, which takes minutes to build.")] = True,
    streaming: Annotated[bool, typer.Option(help="Go through the streaming runbook too.")] = True,
    json_file: Json = None,
) -> None:
    """Recall, latency on one thread, updates a second and memory of the live index, beside raw HNSW and IVF."""
    sys.setswitchinterval(0.0005)  # as the service has it
    rng = np.random.default_rng(0)
    bundle = BundleStore(home / "bundles").load() if home else trained_bundle(Path(".dat/downloads"))
    corpus = scale_up(np.array(bundle.items.vectors), size, rng)
    some = np.ascontiguousarray(bundle.queries.vectors[rng.permutation(len(bundle.queries.ids))[:400]])
    calibrate, queries = some[: len(some) // 2], some[len(some) // 2 :]
    report: dict = {"size": size, "dimension": corpus.shape[1]}

    def say(**figures: Any) -> None:
        report.update(figures)
        print(json.dumps(figures), flush=True)

    faiss.omp_set_num_threads(1)
    goal = measure_live(corpus, calibrate, queries, rng, say)
    if streaming:
        say(streaming=measure_streaming(corpus, queries, calibrate))
    if hnsw:
        measure_hnsw(corpus, queries, goal, say)
    if json_file:
        write_evidence(json_file, report)
    wrong = [name for name in ("stale", "deleted", "doubled", "missing") if report[f"check_{name}"]]
    if wrong:
        print(f"dat: the index is wrong: {', '.join(wrong)} items after {CHANGES:,} changes", file=sys.stderr)
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
