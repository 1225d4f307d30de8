"""How fast the night makes a training set and trains on it, and in how much memory, as clicks grow and ids do not.

    python -m benchmarks.trainingset --clicks 1000000,3000000,10000000 --json trainingset.json

Each size is a market of its own: the same Zipf-like queries and items over eleven days, of which ten are the window. A
process each runs ``floor`` (Spark reads the clicks and writes them), ``night`` (the lake → checks → features for Feast
→ the training set: the nightly job's own steps), ``memory`` (the same tables in one process's memory, as ``dat
evaluate`` makes them, without checks and features) and ``training`` (what the night does with the set of ``night``: the
pass that learns scales, then so many seconds of the first epoch).

Memory is that of the whole process tree, with shared pages counted once (PSS), sampled twice a second, by kind of
process (Spark's JVM, Python, and Python under Spark's workers), anonymous pages and pages of files apart: the latter
are the page cache's, which gives them back. So are the seconds of processor, with start-up, which other work on the
machine changes less than it does the seconds that pass.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import psutil
import typer

from cli.evidence import write_evidence
from cli.options import Json

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

FIRST_MS = 1_700_006_400_000  # 2023-11-15 00:00 UTC
DAY_MS = 86_400_000
DAYS = 11
PAGES = ("anonymous", "files")
TEST_DAY = date(2023, 11, 25)
CARD = """
name = "bench"
title = "Generated clicks"
window_days = 10
clicks = { path = "-", query = "query", item = "item", time = "time" }
query = { half_lives = ["1h", "24h"] }
[item]
table = { path = "items.parquet", id = "item" }
half_lives = ["1h", "24h"]
category = "category"
created = "created"
[item.features]
category = { column = "category", kind = "category" }
price = { column = "price", kind = "number" }
created = { column = "created", kind = "time" }
"""


def trainingset(
    clicks: Annotated[str, typer.Option(help="Sizes, separated by commas.")] = "1000000,3000000,10000000",
    what: Annotated[str, typer.Option(help="Which of floor, night, memory, training.")] = "floor,night,memory,training",
    queries: Annotated[int, typer.Option(min=100)] = 50_000,
    items: Annotated[int, typer.Option(min=100)] = 10_000,
    seconds: Annotated[int, typer.Option(min=1, help="Of processor, of the first epoch.")] = 60,
    cores: Annotated[int, typer.Option(min=1)] = 2,
    negatives: Annotated[int, typer.Option(min=1, help="S: negatives for each positive.")] = 4,
    memory_gib: Annotated[float, typer.Option(help="A process tree that grows past this is stopped.")] = 6,
    json_file: Json = None,
) -> None:
    """Measure the making of training sets of growing sizes, beside a floor and one made in memory, and training."""
    result: dict = {
        "cores": cores, "negatives": negatives, "memory_limit_gib": memory_gib, "queries": queries, "items": items,
        "training_seconds": seconds, "runs": [],
    }  # fmt: skip
    for size in (int(part) for part in clicks.split(",")):
        with tempfile.TemporaryDirectory(prefix="dat-bench-") as scratch:
            generate(Path(scratch), size, queries, items)
            run: dict = {"clicks": size, "load_before": round(os.getloadavg()[0], 2)}
            for name in what.split(","):
                run[name] = _measure(name, Path(scratch), cores, negatives, seconds, memory_gib)
                print(f"{size:>11,} clicks  {name:<10} {run[name]}", flush=True)
            if all("seconds" in run.get(name, {}) for name in ("floor", "night")):
                run["night_over_floor"] = round(run["night"]["seconds"] / run["floor"]["seconds"], 2)
            result["runs"].append(run)
            result |= growth(result["runs"])
            if json_file:
                write_evidence(json_file, result)
    print(json.dumps(result, indent=2))


def growth(runs: list[dict]) -> dict:
    """What the largest size needed, and how many times as much memory as the smallest: pages of files left out."""
    found: dict = {"clicks_from": runs[0]["clicks"], "clicks_to": runs[-1]["clicks"]}
    for name in ("night", "training"):
        smallest, largest = (run.get(name, {}) for run in (runs[0], runs[-1]))
        if "peaks_mib" in smallest and "peaks_mib" in largest:
            before, now = (run["peaks_mib"]["all"]["anonymous"] for run in (smallest, largest))
            found |= {f"{name}_mib": now, f"{name}_growth": round(now / before, 2)}
            found[f"{name}_rows_per_s"] = largest["rows_per_s"]
    return found


def generate(home: Path, size: int, queries: int, items: int) -> None:
    """A lake of ``size`` clicks and a catalogue; few queries and items have most of the clicks."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng = np.random.default_rng(0)
    created = np.where(rng.random(items) < 0.8, FIRST_MS, FIRST_MS + rng.integers(0, DAYS * DAY_MS, items))
    created[:50] = FIRST_MS
    names = pa.array([f"i{k}" for k in range(items)])
    catalogue = {
        "item": names,
        "category": pa.array([f"c{k}" for k in range(9)]).take(pa.array((9 * rng.random(items) ** 2).astype(int))),
        "price": rng.gamma(2.0, 20.0, items).astype(np.float32),
        "created": created,
    }
    pq.write_table(pa.table(catalogue), home / "items.parquet")
    (home / "bench.toml").write_text(CARD)
    per_day = np.diff(np.linspace(0, size, DAYS + 1).astype(int))
    done = 0
    people = pa.array([f"q{k}" for k in range(queries)])
    for day, count in enumerate(per_day):
        start = FIRST_MS + day * DAY_MS
        what = (items * rng.random(count) ** 3).astype(np.int64)
        times = np.sort(start + rng.integers(0, DAY_MS, count))
        what = np.where(created[what] > times, what % 50, what)  # an item that is still to come gives its click away
        table = pa.table(
            {
                "event_id": pa.array([f"e{k:012d}" for k in range(done, done + count)]),
                "query_id": people.take(pa.array((queries * rng.random(count) ** 2).astype(np.int64))),
                "item_id": names.take(pa.array(what)),
                "event_time": times,
                "partition": pa.nulls(count, pa.int32()),
                "offset": pa.nulls(count, pa.int64()),
            }
        )
        folder = home / "lake" / "clicks" / "landing=log" / f"date={date.fromtimestamp(start / 1000).isoformat()}"
        folder.mkdir(parents=True)
        pq.write_table(table, folder / "part-0.parquet")
        done += count


def _measure(name: str, home: Path, cores: int, negatives: int, seconds: int, memory_gib: float) -> dict:
    """Run one contestant in a process of its own; its figures, and the peak memory of its process tree."""
    numbers = map(str, (cores, negatives, seconds))
    command = [sys.executable, "-m", "benchmarks.trainingset", "--one", name, str(home), *numbers]
    environment = os.environ | {"OMP_NUM_THREADS": str(cores)}
    with tempfile.TemporaryFile("w+") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, env=environment)
        peak, stopped = 0, False
        peaks: dict[str, dict[str, int]] = {}
        processor: dict[int, float] = {}  # seconds, by process
        done = threading.Event()

        def watch() -> None:
            nonlocal peak, stopped
            while not done.wait(0.5):
                uses, times = _tree_use(process.pid)
                peak = max(peak, sum(sum(pages.values()) for pages in uses.values()))
                everything = {kind: sum(pages[kind] for pages in uses.values()) for kind in PAGES}
                for of, pages in {**uses, "all": everything}.items():
                    highest = peaks.setdefault(of, dict.fromkeys(PAGES, 0))
                    highest.update({kind: max(highest[kind], pages[kind]) for kind in PAGES})
                processor.update(times)
                if peak > memory_gib * 2**30:
                    stopped = True
                    _kill_tree(process.pid)
                    return

        watcher = threading.Thread(target=watch)
        watcher.start()
        status = process.wait()
        done.set()
        watcher.join()
        out.seek(0)
        said = out.read().strip().splitlines()
    peak_mib = round(peak / 2**20)
    if stopped:
        return {"stopped": f"needed more than {memory_gib} GiB", "peak_mib": peak_mib}
    if status:
        raise RuntimeError("\n".join(said[-30:]))
    by_process = {of: {kind: round(size / 2**20) for kind, size in pages.items()} for of, pages in peaks.items()}
    used = {"peak_mib": peak_mib, "peaks_mib": by_process, "processor_seconds": round(sum(processor.values()), 1)}
    return json.loads(said[-1]) | used


def _tree(pid: int) -> list[psutil.Process]:
    try:
        parent = psutil.Process(pid)
        return [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _tree_use(pid: int) -> tuple[dict[str, dict[str, int]], dict[int, float]]:
    """Bytes of memory of a process tree by kind of process and of pages, and each process's seconds of processor."""
    uses: dict[str, dict[str, int]] = {}
    times = {}
    for process in _tree(pid):
        try:
            java = process.name() == "java"
            kind = "spark" if java else "python" if process.pid == pid else "python workers"
            lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()[1:]
            sizes = {line.split(":")[0]: int(line.split()[1]) << 10 for line in lines}
            pages = uses.setdefault(kind, dict.fromkeys(PAGES, 0))
            pages["anonymous"] += sizes["Pss_Anon"]
            pages["files"] += sizes["Pss_File"] + sizes["Pss_Shmem"]
            spent = process.cpu_times()
            times[process.pid] = spent.user + spent.system
        except (psutil.NoSuchProcess, psutil.AccessDenied, OSError, KeyError):  # it has ended meanwhile
            continue
    return uses, times


def _kill_tree(pid: int) -> None:
    for process in reversed(_tree(pid)):
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue


def _spark(home: Path, cores: int) -> "AbstractContextManager[SparkSession]":
    from model.settings.night import NightConfig
    from spark_jobs.session import spark_session

    return spark_session(NightConfig(cores=str(cores)), home / "spark")


def floor(home: Path, cores: int, negatives: int, seconds: int) -> dict:
    """Spark reads the clicks and writes them."""
    with _spark(home, cores) as spark:
        clicks = spark.read.parquet(str(home / "lake" / "clicks"))
        started = time.perf_counter()
        clicks.write.mode("overwrite").parquet(str(home / "floor"))
        return {"seconds": round(time.perf_counter() - started, 2)}


def night(home: Path, cores: int, negatives: int, seconds: int) -> dict:
    """The nightly job's own steps, from the lake to the finished training set."""
    from feature_repo.card import load_card
    from feature_repo.store import open_store, register
    from model.settings.night import NightConfig
    from spark_jobs import training_set
    from spark_jobs.land_catalogue import land_catalogue
    from spark_jobs.nightly import Night

    card = load_card(home / "bench.toml")
    store = open_store(home)
    register(store, card, home)
    night = Night(home, card, store, NightConfig(negatives=negatives), Silent())
    folder = training_set.folder_of(home, TEST_DAY)
    with _spark(home, cores) as spark:
        started = time.perf_counter()
        for side in ("query", "item"):
            land_catalogue(card, home, side, home / "lake" / "catalogues" / side)
        night._build(night._cut(spark, TEST_DAY), folder, "benchmark")
        total = time.perf_counter() - started
    card_of_set = training_set.data_card(folder)
    assert card_of_set is not None
    rows = card_of_set["rows"]
    return {
        "seconds": round(total, 2), "rows": rows, "rows_per_s": round(rows / total), "stages": night.clock.seconds,
    }  # fmt: skip


class Silent:
    """A night's progress that nobody watches."""

    def stage(self, name: str, total: int | None = None) -> AbstractContextManager[Callable[[int], None]]:
        return contextlib.nullcontext(lambda more: None)

    def tell(self, text: str) -> None:
        pass


def memory(home: Path, cores: int, negatives: int, seconds: int) -> dict:
    """The same tables in the memory of one process."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    from feature_repo.card import load_card
    from feature_repo.reader.catalogue import read_catalogue
    from training.build import build_tables, in_fold_order

    card = load_card(home / "bench.toml")
    started = time.perf_counter()
    columns = ["event_id", "query_id", "item_id", "event_time"]
    clicks = pq.read_table(home / "lake" / "clicks", columns=columns, partitioning=None)
    cut = FIRST_MS + (DAYS - 1) * DAY_MS
    clicks = in_fold_order(clicks.filter(pc.less(clicks["event_time"], cut)), card)
    catalogues = {side: read_catalogue(card, home, side) for side in ("query", "item")}
    tables = build_tables(clicks.slice(0, 0), clicks, catalogues, card, cut, negatives, 0)
    for name, table in zip(tables._fields, tables, strict=True):
        pq.write_table(table, home / f"{name}-memory.parquet")
    total = time.perf_counter() - started
    return {"seconds": round(total, 2), "rows": len(clicks), "rows_per_s": round(len(clicks) / total)}


class _Enough(Exception):
    pass


def training(home: Path, cores: int, negatives: int, seconds: int) -> dict:
    """The trainer on the set that ``night`` has made: all that comes before the first epoch, and some of it."""
    import torch

    from feature_repo.card import load_card
    from model.settings.model import NO_CLOSED_FORM, DATConfig
    from training.fit import make_trainer
    from training.training_set import TrainingSet

    torch.set_num_threads(cores)
    started = time.process_time()
    data = TrainingSet.load(home / "training_sets" / TEST_DAY.isoformat(), load_card(home / "bench.toml"))
    loaded = time.process_time()
    trainer = make_trainer(data, DATConfig(closed_form=NO_CLOSED_FORM))
    begun, began, trained = time.process_time(), time.perf_counter(), 0

    def on_block() -> None:
        nonlocal trained
        trained = trainer.position
        if time.process_time() - begun > seconds:
            raise _Enough

    with contextlib.suppress(_Enough):
        trainer.epoch(on_block)
    spent, passed = time.process_time() - begun, time.perf_counter() - began
    return {
        "rows": len(data), "load_rows_per_s": round(len(data) / (loaded - started)),
        "first_pass_rows_per_s": round(len(data) / (begun - loaded)), "trained": trained,
        "rows_per_s": round(trained / spent), "seconds": round(passed, 2),
    }  # fmt: skip


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        _, _, name, home_, *numbers_ = sys.argv
        found = globals()[name](Path(home_), *map(int, numbers_))
        print(json.dumps(found))
    else:
        typer.run(trainingset)
