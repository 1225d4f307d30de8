"""How fast the night makes a training set, and in how much memory, as its clicks grow.

    python -m benchmarks.trainingset --clicks 1000000,3000000,10000000 --json trainingset.json

Each size is a market of its own: Zipf-like queries and items over eleven days, of which ten are the window. A process
each runs ``night`` (the lake → features → negatives → the point-in-time join: what the nightly job does), ``floor``
(Spark reads the same clicks and writes as many rows), ``floor_wide`` (likewise, with columns as wide as the training
set's) and ``pandas`` (the same set in memory, with ``merge_asof``). Memory is that of the whole process tree, with
shared pages counted once (PSS), sampled twice a second; so are the seconds of processor, with start-up, which other
work on the machine changes less than it does the seconds that pass.
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from datetime import date
from pathlib import Path
from typing import Annotated

import numpy as np
import psutil
import typer

FIRST_MS = 1_700_006_400_000  # 2023-11-15 00:00 UTC
DAY_MS = 86_400_000
DAYS = 11
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
    what: Annotated[str, typer.Option(help="Which of night, floor, floor_wide, pandas.")] = (
        "floor,floor_wide,night,pandas"
    ),
    cores: Annotated[int, typer.Option(min=1)] = 2,
    negatives: Annotated[int, typer.Option(min=1, help="S: negatives for each positive.")] = 4,
    memory_gib: Annotated[float, typer.Option(help="A process tree that grows past this is stopped.")] = 6,
    json_file: Annotated[Path | None, typer.Option("--json")] = None,
) -> None:
    """Measure the making of training sets of growing sizes beside a floor and a set made in pandas."""
    result: dict = {"cores": cores, "negatives": negatives, "memory_limit_gib": memory_gib, "runs": []}
    for size in (int(part) for part in clicks.split(",")):
        with tempfile.TemporaryDirectory(prefix="dat-bench-") as scratch:
            generate(Path(scratch), size)
            run: dict = {"clicks": size, "load_before": round(os.getloadavg()[0], 2)}
            for name in what.split(","):
                run[name] = _measure(name, Path(scratch), cores, negatives, memory_gib)
                print(f"{size:>11,} clicks  {name:<10} {run[name]}", flush=True)
            for name in ("floor", "floor_wide"):
                if "seconds" in run.get(name, {}) and "seconds" in run.get("night", {}):
                    run[f"night_over_{name}"] = round(run["night"]["seconds"] / run[name]["seconds"], 2)
            result["runs"].append(run)
            if json_file:
                json_file.write_text(json.dumps(result, indent=2))
    print(json.dumps(result, indent=2))


def generate(home: Path, size: int) -> None:
    """A lake of ``size`` clicks and a catalogue; few queries and items have most of the clicks."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng = np.random.default_rng(0)
    queries, items = max(100, size // 20), max(100, size // 100)
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


def _measure(name: str, home: Path, cores: int, negatives: int, memory_gib: float) -> dict:
    """Run one contestant in a process of its own; its figures, and the peak memory of its process tree."""
    command = [sys.executable, "-m", "benchmarks.trainingset", "--one", name, str(home), str(cores), str(negatives)]
    environment = os.environ | {"OMP_NUM_THREADS": str(cores), "POLARS_MAX_THREADS": str(cores)}
    with tempfile.TemporaryFile("w+") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, env=environment)
        peak, stopped = 0, False
        processor: dict[int, float] = {}  # seconds, by process
        done = threading.Event()

        def watch() -> None:
            nonlocal peak, stopped
            while not done.wait(0.5):
                used, times = _tree_use(process.pid)
                peak = max(peak, used)
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
    return json.loads(said[-1]) | {"peak_mib": peak_mib, "processor_seconds": round(sum(processor.values()), 1)}


def _tree(pid: int) -> list[psutil.Process]:
    try:
        parent = psutil.Process(pid)
        return [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _tree_use(pid: int) -> tuple[int, dict[int, float]]:
    """Bytes of memory of a process tree, and the seconds of processor that each of its processes has used."""
    total, times = 0, {}
    for process in _tree(pid):
        try:
            total += process.memory_full_info().pss
            spent = process.cpu_times()
            times[process.pid] = spent.user + spent.system
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return total, times


def _kill_tree(pid: int) -> None:
    for process in reversed(_tree(pid)):
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue


def _spark(home: Path, cores: int):
    from spark_jobs.config import NightConfig
    from spark_jobs.session import spark_session

    return spark_session(NightConfig(cores=str(cores), driver_memory="2g"), home / "spark")


def floor(home: Path, cores: int, negatives: int) -> dict:
    """Spark reads the clicks and writes them."""
    with _spark(home, cores) as spark:
        clicks = spark.read.parquet(str(home / "lake" / "clicks"))
        started = time.perf_counter()
        clicks.write.mode("overwrite").parquet(str(home / "floor"))
        return {"seconds": round(time.perf_counter() - started, 2)}


def floor_wide(home: Path, cores: int, negatives: int) -> dict:
    """Spark reads the clicks and writes a row each with columns like the training set's, from hashes of the click."""
    from pyspark.sql import functions as F

    with _spark(home, cores) as spark:
        clicks = spark.read.parquet(str(home / "lake" / "clicks"))
        slots = range(negatives + 1)
        noise = [F.xxhash64("event_id", F.lit(k)) for k in slots]

        def lists(values: list, kind: str):
            return F.array(*[value.cast(kind) for value in values])

        wide = clicks.select(
            "event_id", "query_id", "event_time",
            F.array(*[F.concat(F.lit("i"), F.pmod(value, F.lit(100_000)).cast("string")) for value in noise])
            .alias("candidates"),
            F.pmod(noise[0], F.lit(1_000)).alias("query__clicks"),
            lists(noise[:2], "float").alias("query__counters"),
            F.col("event_time").alias("query__last_click"),
            F.array(*[F.concat(F.lit("c"), F.pmod(value, F.lit(9)).cast("string")) for value in noise])
            .alias("item__category"),
            lists([F.pmod(value, F.lit(100_000)) for value in noise], "float").alias("item__price"),
            lists(noise, "long").alias("item__created"),
            lists([F.pmod(value, F.lit(10_000)) for value in noise], "long").alias("item__clicks"),
            F.array(*[lists([value, -value], "float") for value in noise]).alias("item__counters"),
            lists([F.col("event_time") - F.pmod(value, F.lit(1_000_000)) for value in noise], "long")
            .alias("item__last_click"),
        )  # fmt: skip
        started = time.perf_counter()
        wide.write.mode("overwrite").parquet(str(home / "floor_wide"))
        return {"seconds": round(time.perf_counter() - started, 2)}


def night(home: Path, cores: int, negatives: int) -> dict:
    """The nightly job's own stages, from the lake to the finished training set."""
    from feature_repo.card import load_card
    from feature_repo.store import open_store, register
    from spark_jobs import carry, features, lake, training_set, validate
    from spark_jobs.config import NightConfig
    from spark_jobs.days import window

    card = load_card(home / "bench.toml")
    store = open_store(home)
    register(store, card, home)
    config = NightConfig(negatives=negatives, cores=str(cores), driver_memory="2g")
    seconds, last = {}, time.perf_counter()

    def lap(name: str) -> None:
        nonlocal last
        seconds[name] = round(time.perf_counter() - last, 1)
        last = time.perf_counter()

    with _spark(home, cores) as spark:
        started = last = time.perf_counter()
        clicks = lake.read_lake(spark, card, home / "lake" / "clicks")
        profiles = {}
        span = window(card, TEST_DAY, 10)
        validate.check_days(clicks, span, card, config.rules)
        lap("check days")
        for side in ("query", "item"):
            profiles[side] = features.read_profiles(spark, card, home, side)
            features.write_history(profiles[side], home / "offline", f"{side}_profile")
        lap("profiles")
        offline = home / "offline"
        carry.write(clicks, home / "lake" / "clicks", offline, card, profiles["item"], None, span.start)
        lap("activity")
        validate.check_features(offline, card, None)
        lap("check features")
        folder = training_set.folder_of(home, TEST_DAY)
        test = clicks.where(f"event_time >= {span.cut} AND event_time < {span.end}")
        training_set.sample(clicks, test, profiles, card, span, config, folder, offline)
        lap("sample")
        training_set.join(store, card, span, config, folder, lambda rows: None)
        lap("join")
        total = time.perf_counter() - started
    rows = training_set.data_card(folder)["rows"]
    return {"seconds": round(total, 2), "rows": rows, "rows_per_s": round(rows / total), "stages": seconds}


def pandas(home: Path, cores: int, negatives: int) -> dict:
    """The same values in memory with pandas, a row a candidate: ``merge_asof`` for what was known before each click."""
    import pandas as pd

    from training.activity import count_each

    started = time.perf_counter()
    clicks = pd.read_parquet(home / "lake" / "clicks", columns=["event_id", "query_id", "item_id", "event_time"])
    clicks = clicks.drop_duplicates("event_id").sort_values(["event_time", "event_id"], ignore_index=True)
    catalogue = pd.read_parquet(home / "items.parquet").sort_values("created", ignore_index=True)
    cut = FIRST_MS + (DAYS - 1) * DAY_MS
    activity = {}
    for key in ("query_id", "item_id"):
        groups = pd.factorize(clicks[key])[0]
        counters = count_each(clicks.event_time.to_numpy(), groups, (3_600_000, DAY_MS))
        activity[key] = pd.DataFrame(
            {
                key: clicks[key], "event_time": clicks.event_time, "clicks": clicks.groupby(key).cumcount() + 1,
                "short": counters[:, 0], "long": counters[:, 1], "last_click": clicks.event_time,
            }
        )  # fmt: skip
    window = clicks[clicks.event_time < cut]
    rng = np.random.default_rng(0)
    number = pd.Series(np.arange(len(catalogue)), catalogue["item"])
    items, queries = number[window.item_id].to_numpy(), pd.factorize(window.query_id)[0]
    exist = np.searchsorted(catalogue.created, window.event_time, side="right")
    pairs = np.unique(queries * len(catalogue) + items)
    drawn = np.full((len(window), negatives), -1)
    row, slot = np.nonzero(drawn < 0)
    while len(row):
        guess = (rng.random(len(row)) * exist[row]).astype(int)
        wanted = queries[row] * len(catalogue) + guess
        fine = pairs[np.minimum(np.searchsorted(pairs, wanted), len(pairs) - 1)] != wanted
        drawn[row[fine], slot[fine]] = guess[fine]
        row, slot = row[~fine], slot[~fine]
    candidates = np.concatenate([items[:, None], drawn], axis=1).ravel()
    rows = window.loc[window.index.repeat(negatives + 1)].reset_index(drop=True)
    rows["item_id"] = catalogue["item"].to_numpy()[candidates]
    for key, side in (("query_id", "query"), ("item_id", "item")):
        known = activity[key].add_prefix(f"{side}__").rename(columns={f"{side}__{key}": key})
        known = known.rename(columns={f"{side}__event_time": "event_time"})
        rows = pd.merge_asof(rows, known, on="event_time", by=key, allow_exact_matches=False)
    rows = rows.merge(catalogue.rename(columns={"item": "item_id"}), on="item_id")
    rows.to_parquet(home / "pandas.parquet")
    total = time.perf_counter() - started
    return {"seconds": round(total, 2), "rows": len(window), "rows_per_s": round(len(window) / total)}


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        _, _, name, home_, cores_, negatives_ = sys.argv
        found = globals()[name](Path(home_), int(cores_), int(negatives_))
        print(json.dumps(found))
    else:
        typer.run(trainingset)
