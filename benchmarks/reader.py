"""How fast a log is read, and in how much memory: what `dat data check` and a night's landing do before anything else.

    python -m benchmarks.reader --rows 10000000 --json reader.json

``text``: one CSV file of many rows · ``parquet``: the same rows · ``small_files``: many CSV files of three rows each ·
``landing``: the same small files into an empty lake. Each runs in a process of its own: ``seconds`` are of the wall
clock, ``cpu_seconds`` of all its threads, ``peak_mb`` is the most memory that it had, of which ``start_mb`` before it
read.
"""

import os
import resource
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import duckdb
import typer

from cli.evidence import write_evidence
from cli.options import Json

CARD = """
name = "{name}"
title = "Made-up clicks"
folder = "{name}"
clicks = {{ path = "*", query = "user", item = "item", time = "at", time_unit = "ms" }}
"""
FIRST_MS = 1_700_000_000_000


def reader(
    rows: Annotated[int, typer.Option(min=1_000, help="Rows of the large files.")] = 10_000_000,
    files: Annotated[int, typer.Option(min=1, help="Small files.")] = 1_000,
    json_file: Json = None,
) -> None:
    """Measure the reading of logs."""
    result: dict[str, Any] = {"rows": rows, "files": files, "load_before": os.getloadavg()[0]}
    with tempfile.TemporaryDirectory(prefix="dat-bench-") as scratch:
        folder = Path(scratch)
        _write(folder, rows, files)
        for name, run, log in (
            ("text", _check, "text"), ("parquet", _check, "parquet"), ("small_files", _check, "small"),
            ("landing", _land, "small"),
        ):  # fmt: skip
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as alone:
                result[name] = alone.submit(_measured, run, folder / f"{log}.toml").result()
            print(name, result[name])
    if json_file:
        write_evidence(json_file, result)


def _write(folder: Path, rows: int, files: int) -> None:
    clicks = (
        "SELECT 'u' || (hash(n) % 1000000)::VARCHAR AS user, 'i' || (hash(n + 1) % 100000)::VARCHAR AS item, "
        f"{FIRST_MS} + n * 100 AS at FROM range({rows}) t(n)"
    )
    for name in ("text", "parquet", "small"):
        (folder / name).mkdir()
        (folder / f"{name}.toml").write_text(CARD.format(name=name))
    with duckdb.connect() as sql:
        sql.execute(f"COPY ({clicks}) TO '{folder / 'text' / 'log.csv'}' (HEADER)")
        sql.execute(f"COPY ({clicks}) TO '{folder / 'parquet' / 'log.parquet'}'")
    for n in range(files):
        lines = [f"u{(n + k) % 50},i{n * k % 70},{FIRST_MS + n * 600_000 + k}" for k in range(3)]
        (folder / "small" / f"{n:06}.csv").write_text("\n".join(["user,item,at", *lines]) + "\n")


def _measured(run: Callable[[Path], int], card: Path) -> dict[str, float]:
    import feature_repo.reader.dataset  # noqa: F401 (not to be measured)
    import spark_jobs.land_log  # noqa: F401

    before, cpu, started = _peak_mb(), time.process_time(), time.perf_counter()
    rows = run(card)
    seconds, spent = time.perf_counter() - started, time.process_time() - cpu
    return {
        "rows": rows, "seconds": round(seconds, 2), "cpu_seconds": round(spent, 2),
        "rows_per_s": round(rows / seconds), "rows_per_cpu_s": round(rows / spent),
        "start_mb": before, "peak_mb": _peak_mb(),
    }  # fmt: skip


def _peak_mb() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def _check(card: Path) -> int:
    from feature_repo.card import load_card
    from feature_repo.reader.dataset import check_dataset

    chosen = load_card(card)
    return check_dataset(chosen, Path(chosen.folder), 0.05).rows


def _land(card: Path) -> int:
    from feature_repo.card import load_card
    from model.settings.night import Rules
    from spark_jobs.land_log import land_log

    chosen = load_card(card)
    report = land_log(chosen, Path(chosen.folder), card.parent / "lake", Rules())
    return report.landed if report else 0


if __name__ == "__main__":
    typer.run(reader)
