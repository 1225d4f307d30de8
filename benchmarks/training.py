"""How fast training is: examples a second beside the same two-tower in torch-rechub and RecBole, and how that scales.

    python -m benchmarks.training --json training.json

One example is a pair of a query and a candidate: 256 positives with 4 negatives each are 1,280. DAT runs its full loss
(augmented vectors by replay, recent items, sampled softmax), ``dat_published`` the paper's with category alignment,
``two_tower`` no augmented vectors; the peers run their DSSM by their own trainers on the same pairs, batch and sizes,
with fewer inputs: two ids and a category each side. ``*_bare``: a peer's model and optimiser without its loader.
``epoch_s``: seconds an epoch while the tables grow and the clicks stay the same.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from cli.evidence import write_evidence
from cli.options import Json

if TYPE_CHECKING:
    from training.trainer import Trainer
    from training.training_set import TrainingSet

BATCH, NEGATIVES, KINDS = 256, 4, 200
RECENT = 20
PEERS = Path(__file__).with_name("training_peers.txt")
SCALES = (1, 10)  # of the tables at which the peers are measured, too
GROWTH = (1, 10, 100)
CASES = {  # what is measured: a model of a comparison, and what is changed of it
    "dat": ("dat", {}),
    "dat_published": ("dat-cal", {}),
    "two_tower": ("two-tower", {"recent_items": 0, "embedding_dropout": 0.0}),
}

Array = np.ndarray


def training(
    clicks: Annotated[int, typer.Option(min=2_560)] = 25_600,
    queries: Annotated[int, typer.Option(min=100)] = 285_000,
    items: Annotated[int, typer.Option(min=100)] = 35_000,
    threads: Annotated[int, typer.Option(min=1)] = os.cpu_count() or 1,
    seconds: Annotated[int, typer.Option(min=1, help="At least so long for each peer.")] = 10,
    peers: Annotated[bool, typer.Option(help="Make an environment with both peers and measure them, too.")] = True,
    json_file: Json = None,
) -> None:
    """Measure training on made-up clicks of a skewed distribution."""
    import torch

    torch.set_num_threads(threads)
    result: dict = {
        "clicks": clicks, "queries": queries, "items": items, "batch": BATCH, "negatives": NEGATIVES,
        "threads": threads, "cores": os.cpu_count(), "load_before": os.getloadavg()[0],
    }  # fmt: skip
    log = made_up_log(clicks, queries, items)
    result["examples_per_s"] = {str((queries + items) * times): {} for times in SCALES}

    def say(about: str, figures: dict) -> None:
        print(about, json.dumps(figures), flush=True)
        if json_file:  # after each step, so that what was measured is kept
            write_evidence(json_file, result)

    for times, (size, found) in zip(SCALES, result["examples_per_s"].items(), strict=True):
        for name, (model, settings) in CASES.items():
            trainer = make_trainer(log, queries, items, times, model, **settings)
            found[name] = round(clicks * (1 + NEGATIVES) / epoch_seconds(trainer))
        say(f"examples a second at {int(size):,} ids:", found)
    # The tables grow a hundredfold up to ten times those above; the same ids are clicked, spread over the larger table.
    small = made_up_log(clicks, queries // 10, items // 10)
    result["epoch_s"] = grown(small, queries // 10, items // 10)
    result["epoch_at_100_times_the_ids"] = round(result["epoch_s"]["100"] / result["epoch_s"]["1"], 2)
    say("seconds an epoch by growth of the tables:", result["epoch_s"])
    if not peers:
        return
    with tempfile.TemporaryDirectory(prefix="dat-bench-") as scratch:
        python = peers_python(Path(scratch))
        for times, (size, found) in zip(SCALES, result["examples_per_s"].items(), strict=True):
            folder = Path(scratch) / f"times-{times}"
            found |= measure_peers(python, folder, spread_out(log, times), threads, seconds)
            found["dat_against_the_faster_peer"] = round(found["dat"] / max(found["torch_rechub"], found["recbole"]), 1)
            say(f"examples a second at {int(size):,} ids:", found)


def made_up_log(clicks: int, queries: int, items: int, seed: int = 0) -> dict[str, Array]:
    """Rows of queries [R] and candidates [R, 1+S], and the category of each query and item."""
    rng = np.random.default_rng(seed)
    return {
        "query": (queries * rng.random(clicks) ** 2).astype(np.int64),
        "item": np.concatenate(
            [
                (items * rng.random((clicks, 1)) ** 3).astype(np.int64),
                rng.integers(0, items, (clicks, NEGATIVES)),
            ],
            axis=1,
        ),
        "query_kind": rng.integers(0, KINDS, queries),
        "item_kind": (KINDS * rng.random(items) ** 2).astype(np.int64),
    }


def training_set(log: dict[str, Array], queries: int, items: int, spread: int = 1) -> "TrainingSet":
    """The log as the trainer takes it, each id at ``spread`` times its row of tables that many times as large."""
    from devstack.synthetic_bundle import CARD
    from model.features import CategoryField, InputSpec
    from model.replay import ClickRows
    from model.state import EntityState
    from training.clicks_in_memory import ClicksInMemory
    from training.training_set import TrainingSet

    names = [f"kind-{kind:03d}" for kind in range(KINDS)]
    field = CategoryField(name="kind", slots=1, offset=1, values=names)
    spec = InputSpec(categories=[field], numbers=[], times=[], half_lives_ms=(3_600_000, 86_400_000))
    states = {}
    for side, size in (("query", queries), ("item", items)):
        n = size * spread
        kinds = np.zeros(n, np.int64)
        kinds[::spread] = log[f"{side}_kind"]
        states[side] = EntityState([""] * n, codes=(kinds + 2).astype(np.int32)[:, None],
                                   counters=np.zeros((n, 2), np.float32))  # fmt: skip
    states["query"].columns["recent_items"] = np.full((queries * spread, RECENT), -1, np.int32)
    times = 1_700_000_000_000 + np.arange(len(log["query"])) * 1000
    rows = log["item"] * spread
    clicks = ClickRows(log["query"] * spread, rows[:, 0], times, times)
    return TrainingSet(
        ClicksInMemory(clicks, rows[:, 1:]),
        states["query"],
        states["item"],
        spec,
        spec,
        states["item"].codes[:, 0] - 1,
        False,
        CARD,
    )


def make_trainer(
    log: dict[str, Array], queries: int, items: int, spread: int = 1, model: str = "dat", **settings: Any
) -> "Trainer":
    """A trainer of one of :data:`evaluation.models.DATS` at the paper's sizes, ready for its first step."""
    from evaluation.models import dat_config
    from training.fit import make_trainer

    config = dat_config(model, batch_size=BATCH, closed_form={"weight": 0}, **settings)
    return make_trainer(training_set(log, queries, items, spread), config)


def epoch_seconds(trainer: "Trainer") -> float:
    """Seconds of an epoch: the better of two, after a first one that warms up."""
    trainer.epoch()
    return min(timed(trainer.epoch) for _ in range(2))


def timed(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def grown(log: dict[str, Array], queries: int, items: int) -> dict[str, float]:
    """Seconds an epoch by how many times as large the tables are: in turns, so that a busy moment hits all sizes."""
    trainers = {times: make_trainer(log, queries, items, times) for times in GROWTH}
    for trainer in trainers.values():
        trainer.epoch()
    best = dict.fromkeys(GROWTH, np.inf)
    for _ in range(3):
        for times, trainer in trainers.items():
            best[times] = min(best[times], timed(trainer.epoch))
    return {str(times): round(seconds, 3) for times, seconds in best.items()}


def spread_out(log: dict[str, Array], times: int) -> dict[str, Array]:
    """The same clicks on ids of tables that many times as large."""
    kinds = {}
    for side in ("query", "item"):
        kinds[f"{side}_kind"] = np.zeros(len(log[f"{side}_kind"]) * times, np.int64)
        kinds[f"{side}_kind"][::times] = log[f"{side}_kind"]
    return {"query": log["query"] * times, "item": log["item"] * times, **kinds}


def peers_python(scratch: Path) -> Path:
    """An environment with both peers; torch is the one that we run with."""
    uv = [sys.executable, "-m", "uv"]
    subprocess.run([*uv, "venv", "--quiet", "--python", sys.executable, str(scratch / "venv")], check=True)
    python = scratch / "venv" / "bin" / "python"
    subprocess.run([*uv, "pip", "install", "--quiet", "--python", str(python), "-r", str(PEERS)], check=True)
    return python


def measure_peers(python: Path, folder: Path, log: dict[str, Array], threads: int, seconds: int) -> dict[str, float]:
    """Examples a second of both peers."""
    folder.mkdir()
    arrays: dict[str, Any] = {**log}  # NumPy's stub takes the names for its own options
    np.savez(folder / "log.npz", **arrays)
    script = Path(__file__).with_name("_training_peers.py")
    done = subprocess.run(
        [python, script, folder, str(threads), str(seconds), str(BATCH)],
        capture_output=True, text=True, check=False, cwd=folder,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"the peers failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    return json.loads((folder / "peers.json").read_text())


if __name__ == "__main__":
    typer.run(training)
