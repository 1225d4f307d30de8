"""The live index against raw Faiss, at any size: ``dat bench index --size 3561498 --json index.json``.

The vectors are a trained model's, scaled up: each new one lies between an item and one of its nearest neighbours, with
a little noise, so that the corpus keeps the model's clusters. The queries are the model's own. Without ``--home`` the
model is trained first, for a minute, on MovieLens-100K.

In the end, and whatever the speed, the index must be right: after a million random upserts and deletes its answers are
those of exact search over a plain dictionary, at the promised recall, with no stale, no deleted and no doubled item.
"""

import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Annotated

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before Faiss: threads that spin take the cores from others

import faiss  # noqa: E402
import numpy as np
import typer

from benchmarks._bundles import trained_bundle
from serving.config import IndexConfig
from serving.live_index import LiveIndex
from training.bundle import Shelf

Array = np.ndarray
N = 100
CHANGES = 1_000_000  # of the check


def scale_up(vectors: Array, size: int, rng: np.random.Generator, neighbours: int = 10, noise: float = 0.05) -> Array:
    """``size`` unit vectors [size, d] spread as the given ones [n, d] are."""
    exact = faiss.IndexFlatIP(vectors.shape[1])
    exact.add(vectors)
    _, near = exact.search(vectors, min(neighbours + 1, len(vectors)))
    made = np.empty((size, vectors.shape[1]), np.float32)
    for start in range(0, size, 1 << 18):
        part = slice(start, min(start + (1 << 18), size))
        count = part.stop - part.start
        one = rng.integers(0, len(vectors), count)
        other = near[one, rng.integers(0, near.shape[1], count)]
        share = rng.random((count, 1), np.float32)
        mixed = vectors[one] * (1 - share) + vectors[other] * share
        mixed += noise * rng.normal(size=mixed.shape).astype(np.float32)
        made[part] = mixed / np.linalg.norm(mixed, axis=1, keepdims=True)
    return made


def recall(found: Array, right: Array) -> float:
    """Share of the exact top N that was found: rows [Q, N] each."""
    return float(np.mean([len(np.intersect1d(a, b)) / len(b) for a, b in zip(found, right, strict=True)]))


def latencies(search, queries: Array, seconds: float = 5.0) -> dict[str, float]:
    """p50 and p99 in ms of one query at a time, on one thread, for so long."""
    took, began, k = [], time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        start = time.perf_counter()
        search(queries[k % len(queries)][None])
        took.append(time.perf_counter() - start)
        k += 1
    p50, p99 = np.percentile(took, [50, 99]) * 1000
    return {"p50_ms": round(float(p50), 4), "p99_ms": round(float(p99), 4)}


def cheapest(settings: list[int], apply, search, queries: Array, right: Array, goal: float) -> tuple[int, float]:
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
    right = rows[faiss.knn(queries, current, N, metric=faiss.METRIC_INNER_PRODUCT)[1]]
    found, scores = (np.concatenate(part) for part in zip(*(index.search(q[None], N) for q in queries), strict=True))
    stale = deleted = 0
    for query, row, score in zip(queries.repeat(N, 0), found.ravel().tolist(), scores.ravel().tolist(), strict=True):
        place = truth.get(row)
        deleted += place is None
        stale += place is not None and abs(float(pool[place] @ query) - score) > 1e-4
    return {
        "changes": changed,
        "recall100": round(recall(found, right), 4),
        "stale": stale,
        "deleted": deleted,
        "doubled": sum(N - len(set(row)) for row in found.tolist()),
        "missing": abs(len(index) - len(truth)),
    }


def measure_live(corpus: Array, queries: Array, right: Array, rng: np.random.Generator, say) -> float:
    """The live index, then the Faiss lists inside it by themselves; returns the recall that they are compared at."""
    size = len(corpus)
    before, began = resident_bytes(), time.perf_counter()
    half = len(queries) // 2  # recall is measured on other queries than it was calibrated on
    index = LiveIndex(corpus, IndexConfig(), queries[:half])
    queries, right = queries[half:], right[half:]
    say(build_s=round(time.perf_counter() - began, 1), bytes=resident_bytes() - before)
    faiss.omp_set_num_threads(1)
    found = np.concatenate([index.search(query[None], N)[0] for query in queries])
    goal = recall(found, right) - 0.002  # "equal recall" for the others
    say(recall100=round(recall(found, right), 4), lists=index.lists.nlist, probes=index.probes)
    say(**latencies(lambda query: index.search(query, N), queries))
    raw = index.lists
    probes = [*range(1, 16), *range(16, 64, 4), *range(64, 1024, 16)]
    setting, reached = cheapest(
        probes, lambda probes: setattr(raw, "nprobe", probes), lambda q: raw.search(q, N), queries, right, goal
    )
    times = latencies(lambda query: raw.search(query, N), queries)
    say(ivf_probes=setting, ivf_recall100=round(reached, 4), **{f"ivf_{k}": v for k, v in times.items()})
    rows, fresh = rng.integers(0, len(corpus), 200_000), corpus[rng.integers(0, len(corpus), 200_000)]
    began = time.perf_counter()
    index.upsert(rows, fresh)
    say(upserts_per_s=round(len(np.unique(rows)) / (time.perf_counter() - began)))
    say(**{f"at_20000_upserts_{k}": v for k, v in while_updating(index, queries, 20_000, rng).items()})
    current = index.vectors(np.arange(size))
    right = faiss.knn(queries, current, N, metric=faiss.METRIC_INNER_PRODUCT)[1]
    found = np.concatenate([index.search(query[None], N)[0] for query in queries])
    say(after_updates_recall100=round(recall(found, right), 4))
    say(**{f"check_{k}": v for k, v in check(index, current, size, queries, rng).items()})
    return goal


def measure_hnsw(corpus: Array, queries: Array, right: Array, goal: float, say) -> None:
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
        lambda q: graph.search(q, N), queries, right, goal,
    )  # fmt: skip
    times = latencies(lambda query: graph.search(query, N), queries)
    say(hnsw_ef=setting, hnsw_recall100=round(reached, 4), **{f"hnsw_{k}": v for k, v in times.items()})


def main(
    size: Annotated[int, typer.Option(min=60_000, help="Items in the corpus.")] = 1_000_000,
    home: Annotated[Path | None, typer.Option(help="A home whose bundle in service is scaled up.")] = None,
    hnsw: Annotated[bool, typer.Option(help="Measure HNSW too, which takes minutes to build.")] = True,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures to this file.")] = None,
) -> None:
    """Recall, latency on one thread, updates a second and memory of the live index, beside raw HNSW and IVF."""
    rng = np.random.default_rng(0)
    bundle = Shelf(home / "bundles").load() if home else trained_bundle(Path(".dat/downloads"))
    corpus = scale_up(bundle.items.vectors, size, rng)
    queries = np.ascontiguousarray(bundle.queries.vectors[rng.permutation(len(bundle.queries.ids))[:400]])
    right = faiss.knn(queries, corpus, N, metric=faiss.METRIC_INNER_PRODUCT)[1]
    report: dict = {"size": size, "dimension": corpus.shape[1]}

    def say(**figures) -> None:
        report.update(figures)
        print(json.dumps(figures), flush=True)

    goal = measure_live(corpus, queries, right, rng, say)
    if hnsw:
        measure_hnsw(corpus, queries, right, goal, say)
    if json_file:
        json_file.write_text(json.dumps(report, indent=2))
    wrong = [name for name in ("stale", "deleted", "doubled", "missing") if report[f"check_{name}"]]
    if wrong:
        print(f"dat: the index is wrong: {', '.join(wrong)} items after {CHANGES:,} changes", file=sys.stderr)
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
