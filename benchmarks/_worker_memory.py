"""What one of many workers that share a bundle's queries holds for itself alone, in a process of its own."""

import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa

WORKERS, NEW, AT_ONCE = 16, 0.05, 500


def worker_memory(folder: Path, queries: int, items: int) -> dict[str, float]:
    """Bytes by query of the bundle, of a query worker with one of 16 partitions: of ids and index alone, and once every
    query of its partition has clicked, and some that the bundle does not know. Also how fast it restored them."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as other:
        other.submit(_write, folder, queries, items).result()
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as alone:
        return alone.submit(_measured, folder, queries).result()


def _write(folder: Path, queries: int, items: int) -> None:
    """The bundle, and the changelog of one partition."""
    from devstack.synthetic_bundle import made_up_bundle
    from model.partitioner import partitions_of
    from streaming.kafka.records import QUERY_STATE

    bundle, rng = made_up_bundle(queries, items, frozen=False), np.random.default_rng(0)
    bundle.save(folder / "bundle")
    made_up_bundle(1, items, frozen=False).save(folder / "empty")
    ours = [k for k, home in enumerate(partitions_of([f"q{k}" for k in range(queries)], WORKERS)) if home == 0]
    ids = [f"q{k}" for k in ours] + [f"new{k}" for k in range(int(NEW * len(ours)))]
    rng.shuffle(ids)
    widths = {"a": bundle.queries.a.shape[1], "counters": bundle.queries.counters.shape[1]}
    places = bundle.queries.recent_items.shape[1]
    with pa.OSFile(str(folder / "changelog"), "wb") as file, pa.ipc.new_stream(file, QUERY_STATE) as out:
        for start in range(0, len(ids), AT_ONCE):
            some = ids[start : start + AT_ONCE]
            n, clicks = len(some), np.full(len(some), places)
            clicked = (items * rng.random(n * places) ** 3).astype(int)
            columns: dict[str, Any] = {"id": some, "folded": clicks, "clicks": clicks, "last_click": clicks}
            for name, width in widths.items():
                values = pa.array(rng.random(n * width, np.float32))
                columns[name] = pa.ListArray.from_arrays(np.arange(n + 1, dtype=np.int32) * width, values)
            history = pa.array([f"i{k}" for k in clicked.tolist()])
            columns["history"] = pa.ListArray.from_arrays(np.arange(n + 1, dtype=np.int32) * places, history)
            out.write(pa.record_batch([columns[name] for name in QUERY_STATE.names], schema=QUERY_STATE))


def _measured(folder: Path, queries: int) -> dict[str, float]:
    from model.bundle import Bundle
    from model.settings.updater import UpdaterConfig
    from streaming.stages.stage import QueryStage

    def start(bundle: str) -> QueryStage:
        no_store: Any = SimpleNamespace(config=None)  # the made-up towers read no profile
        return QueryStage(Bundle.load(folder / bundle), no_store, UpdaterConfig(), WORKERS, {})

    _empty = start("empty")  # what any worker has is not to be measured
    before, started = _private(), time.perf_counter()
    stage = start("bundle")
    loaded, opened = time.perf_counter() - started, _private()
    started, rows = time.perf_counter(), 0
    for batch in _changelog(folder):
        stage.restore(batch)
        rows += len(batch)
    seconds = time.perf_counter() - started
    return {
        "shared_queries": queries,
        "shared_load_s": round(loaded, 2),
        "shared_restored_per_s": round(rows / seconds),
        "shared_private_bytes_per_query_of_ids": round((opened - before) / queries, 1),
        "shared_private_bytes_per_query": round((_private() - before) / queries, 1),
        "shared_written": rows,
        "shared_bytes_per_row": round(stage.state.nbytes / len(stage.state)),
    }


def _changelog(folder: Path) -> Iterator[pa.RecordBatch]:
    with pa.OSFile(str(folder / "changelog")) as file, pa.ipc.open_stream(file) as batches:
        yield from batches


def _private() -> int:
    """Bytes that this process alone has: what it has read of files could be given back, and others share it."""
    pa.default_memory_pool().release_unused()
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]
    return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith("Private_Dirty:"))
