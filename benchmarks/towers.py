"""The towers that day and answer run (NumPy) beside those that are trained (torch): ``dat bench towers --json FILE``.

Weights and inputs are random and of the sizes that ship. For batches of one (an answer), of 64 and of 4,096 (the
stream): how far the vectors are apart at most, and microseconds an input, best of many turns on one thread each.
``floor_us``: the multiplications of the widest layer by themselves.
"""

import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"

import numpy as np  # noqa: E402
import torch
import typer
from rich.console import Console
from rich.table import Table

from cli.evidence import write_evidence
from cli.options import Json
from model.features import CategoryField, Inputs, InputSpec
from model.memory import gap_inputs
from model.settings.model import AMM, NO_CLOSED_FORM, DATConfig
from model.towers import Towers
from training.dat import DAT, TorchTowers, as_tensors
from training.memory import Dropout, MemoryDAT

Array = np.ndarray
Pass = Callable[[Inputs, Array], Array]
DAY = 86_400_000
SPEC = InputSpec(
    categories=[CategoryField(name="category", slots=4, offset=1, values=[f"c{k}" for k in range(1_000)])],
    numbers=[], times=[], half_lives_ms=(DAY, 7 * DAY, 30 * DAY),
)  # fmt: skip
IDS = 20_000
SIZES = (1, 64, 4_096)


def main(
    seconds: Annotated[float, typer.Option(min=0.1, help="For how long each pass is repeated.")] = 2,
    json_file: Json = None,
) -> None:
    """Parity and speed of the NumPy towers and the torch towers, in turns."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    report = {"memories": measure(*memories(), seconds), "amm": measure(*averages(), seconds)}
    table = Table("preset", "tower", "batch", "apart at most", "NumPy µs", "torch µs", "floor µs")
    for preset, towers in report.items():
        for name, sizes in towers.items():
            for size, row in sizes.items():
                figures = (f"{row[key]:.2f}" for key in ("numpy_us", "torch_us", "floor_us"))
                table.add_row(preset, name, size.removeprefix("of_"), f"{row['apart']:.1e}", *figures)
    Console().print(table)
    if json_file:
        write_evidence(json_file, report)


def memories() -> tuple[DATConfig, Towers, dict[str, Pass]]:
    """The default preset, but for the closed form, which is no layer."""
    config = DATConfig(closed_form=NO_CLOSED_FORM)
    model = MemoryDAT(IDS, SPEC, SPEC, config)
    quiet = Dropout(0.0, None)

    @torch.inference_mode()
    def query(inputs: Inputs, a: Array) -> Array:
        assert inputs.gap is not None
        _, codes, dense = as_tensors(inputs)
        return model.query_tower(torch.from_numpy(a), codes, dense, torch.from_numpy(inputs.gap), quiet).numpy()

    @torch.inference_mode()
    def item(inputs: Inputs, a: Array) -> Array:
        return (model.item_tower(*as_tensors(inputs), torch.from_numpy(a)) / config.temperature).numpy()

    return config, Towers.of(model.weights(), SPEC, SPEC, config), {"query": query, "item": item}


def averages() -> tuple[DATConfig, Towers, dict[str, Pass]]:
    """The preset ``amm``."""
    model = DAT(IDS, IDS, SPEC, SPEC, AMM)
    towers = TorchTowers(model, AMM)
    return AMM, Towers.of(model.weights(), SPEC, SPEC, AMM), {"query": towers.query, "item": towers.item}


def measure(config: DATConfig, shipped: Towers, trained: dict[str, Pass], seconds: float) -> dict:
    """By tower and batch size: ``apart``, and µs an input of both and of the floor."""
    report: dict = {}
    for name, width in (("query", config.query_state_dim), ("item", config.item_state_dim)):
        for size in SIZES:
            inputs, a = some_inputs(size, config, name), np.random.default_rng(1).normal(size=(size, width))
            a = a.astype(np.float32)
            passes = [getattr(shipped, name), trained[name]]
            one, other = (run(inputs, a) for run in passes)
            wide = max((w for n, w in shipped.weights.items() if is_layer(n, name)), key=lambda w: w.size)
            read = np.ones((size, wide.shape[1]), np.float32)
            turns = [*(partial(run, inputs, a) for run in passes), partial(np.matmul, read, wide.T)]
            numpy_us, torch_us, floor_us = (1e6 * best / size for best in in_turns(turns, seconds))
            report.setdefault(name, {})[f"of_{size}"] = {
                "apart": float(np.abs(one - other).max()), "numpy_us": round(numpy_us, 3),
                "torch_us": round(torch_us, 3), "floor_us": round(floor_us, 3),
            }  # fmt: skip
    return report


def is_layer(name: str, tower: str) -> bool:
    """Whether a weight is a layer of a tower's own, and neither an embedding nor a memory's."""
    tables = ("ids", "features", "items", "memory")
    return name.startswith(tower) and name.endswith("weight") and not any(table in name for table in tables)


def some_inputs(size: int, config: DATConfig, side: str) -> Inputs:
    rng = np.random.default_rng(0)
    recent = rng.integers(0, IDS, (size, config.history)) if config.history and side == "query" else None
    times = np.full(size, 3 * DAY)
    return Inputs(
        rng.integers(0, IDS, size), rng.integers(0, SPEC.codes, (size, SPEC.slots)).astype(np.int32),
        rng.normal(size=(size, SPEC.dense_width)).astype(np.float32), recent,
        gap_inputs(times - rng.integers(1, DAY, size), times),
    )  # fmt: skip


def in_turns(turns: Sequence[Callable[[], object]], seconds: float) -> list[float]:
    """The shortest time of each in seconds; they take turns, so that what else the machine does falls on all alike."""
    best, until = [float("inf")] * len(turns), time.perf_counter() + seconds
    while time.perf_counter() < until:
        for k, turn in enumerate(turns):
            began = time.perf_counter()
            turn()
            best[k] = min(best[k], time.perf_counter() - began)
    return best


if __name__ == "__main__":
    typer.run(main)
