"""The offline experiments: which variants they run, and how runs become rows of a table."""

from pathlib import Path
from typing import Any

import numpy as np

from training.evaluation import MISS
from training.experiments.runs import Array, Journal, Run, Setup, Stage, Variant, run_all
from training.experiments.significance import hits, paired
from training.experiments.tuning import tune
from training.models import dat_config

METRICS = ("hr50", "hr100", "mrr10")
DIMENSIONS = (8, 16, 32, 64, 128)
ABLATION: dict[str, list[Variant]] = {
    "AMM": [
        Variant(label="AMM: off", model="dat", settings={"amm": "off"}),
        Variant(label="AMM: a_u alone", model="dat", settings={"augmented": "query"}),
        Variant(label="AMM: a_v alone", model="dat", settings={"augmented": "item"}),
        Variant(label="AMM: gradient, as published", model="dat", settings={"amm": "gradient", "memories": [0.1]}),
    ],
    "latest items": [Variant(label="latest items: none", model="dat", settings={"latest": 0})],
    "dropout": [
        Variant(label="dropout: none of the embeddings", model="dat", settings={"embedding_dropout": 0.0}),
        Variant(label="dropout: none of the latest items", model="dat", settings={"latest_dropout": 0.0}),
    ],
    "CAL": [
        Variant(label="CAL: λ3 = 1, as published", model="dat-cal"),
        Variant(label="CAL: λ3 = 0.1", model="dat", settings={"lambda_ca": 0.1}),
    ],
    "head": [
        Variant(label="head: ReLU, eq. 1 to the letter", model="dat", settings={"tower": {"head": "relu"}}),
        Variant(label="head: no linear path beside it", model="dat", settings={"tower": {"shortcut": False}}),
    ],
    "loss": [Variant(label="loss: cross entropy, as published", model="dat", settings={"loss": "bce"})],
    "negatives": [Variant(label=f"negatives: S = {s}", model="dat", negatives=s) for s in (1, 8)],
    "memory": [
        Variant(label=f"memory: α = {alpha} alone", model="dat", settings={"memories": [alpha]})
        for alpha in (1.0, 0.4, 0.1, 0.02)
    ],
}
"""What is changed of DAT, one thing at a time, by group."""

Results = dict[str, list[tuple[Run, Array]]]


def summarise(runs: list[tuple[Run, Array]], against: list[tuple[Run, Array]]) -> dict[str, Any]:
    """Mean and sample standard deviation over seeds, the paired tests, and each part of the clicks on average.

    ``p_seeds``: would it hold if both were trained again? Paired over seeds, by metric. ``p_clicks``: would it hold on
    other clicks? HR@100, paired over test clicks, each click's hits averaged over the seeds.
    """
    values = {key: np.array([getattr(run.report.all, key) for run, _ in runs]) for key in METRICS}
    others = {key: np.array([getattr(run.report.all, key) for run, _ in against]) for key in METRICS}
    same = runs is against
    parts = {
        part: {
            key: float(np.mean([getattr(run.report.parts[part], key) for run, _ in runs]))
            for key in ("clicks", *METRICS)
        }
        for part, metrics in runs[0][0].report.parts.items()
        if metrics.clicks
    }
    return {
        **{key: float(found.mean()) for key, found in values.items()},
        "std": {key: float(found.std(ddof=1)) if len(found) > 1 else 0.0 for key, found in values.items()},
        "p_seeds": None if same else {key: _number(_over_seeds(values[key], others[key])) for key in METRICS},
        "p_clicks": None
        if same
        else _number(paired(hits([r for _, r in runs], 100), hits([r for _, r in against], 100))),
        "seeds": len(runs),
        "collapsed": sum(run.collapsed for run, _ in runs),
        "seconds": float(np.mean([run.seconds for run, _ in runs])),
        "parts": parts,
    }


def _over_seeds(ours: Array, theirs: Array) -> float:
    """A model without chance ran once: its value stands beside each seed of the other."""
    return paired(ours, theirs) if len(ours) == len(theirs) or 1 in (len(ours), len(theirs)) else float("nan")


def _number(value: float) -> float | None:
    return None if np.isnan(value) else value


def _about(setup: Setup, seeds: int, results: Results) -> dict[str, Any]:
    ranks = next(iter(results.values()))[0][1]
    return {
        "dataset": setup.card.name,
        "title": setup.card.title,
        "protocol": setup.protocol,
        "clicks": len(setup.clicks),
        "test_clicks": len(ranks),
        "found": int((ranks != MISS).sum()),
        "seeds": seeds,
    }


def table2(
    setup: Setup, folder: Path, models: list[str], trials: int, seeds: int, stage: Stage, baseline: str = "dat"
) -> dict[str, Any]:
    """Every model tuned with as many trials on the validation cut, then its best settings with every seed."""
    tuned = {name: tune(setup, name, trials, folder, stage) for name in models}
    variants = [Variant(label=name, model=name, settings=tuned[name].settings) for name in models]
    results = run_all(setup, Journal(folder), variants, seeds, stage)
    baseline = baseline if baseline in results else models[0]
    rows = {
        name: {**summarise(runs, results[baseline]), "settings": tuned[name].settings, "trials": tuned[name].values}
        for name, runs in results.items()
    }
    return {"experiment": "table2", **_about(setup, seeds, results), "baseline": baseline, "results": rows}


def dimension(setup: Setup, folder: Path, sizes: list[int], seeds: int, stage: Stage) -> dict[str, Any]:
    """DAT against the size of its augmented vectors, in two ways.

    ``one``: a single memory as large as the towers' output, as in the paper (what a_u mimics is p_v, so the two are of
    one size), with the towers without AMM at the same output beside it. ``several``: the output stays as it is and
    memories are added, each of its size.
    """
    config = dat_config("dat", **setup.training)
    whole, width = config.memories, config.tower.output_dim
    variants, places = [], []

    def add(series: str, size: int, **settings: Any) -> None:
        variants.append(Variant(label=f"{series}, {size}", model="dat", settings=settings))
        places.append((series, size))

    add("several", 0, amm="off")
    for size in sizes:
        if size:
            add("one", size, memories=[0.1], tower={"output_dim": size})
            add("without", size, amm="off", tower={"output_dim": size})
    for count in range(1, len(whole) + 1):
        add("several", width * count, memories=list(whole[:count]))
    results = run_all(setup, Journal(folder), variants, seeds, stage)
    base = results[variants[-1].label]
    rows = {
        variant.label: {"series": series, "size": size, **summarise(results[variant.label], base)}
        for variant, (series, size) in zip(variants, places, strict=True)
    }
    return {"experiment": "dimension", **_about(setup, seeds, results), "baseline": variants[-1].label, "results": rows}


def ablation(setup: Setup, folder: Path, groups: list[str], seeds: int, stage: Stage) -> dict[str, Any]:
    """DAT as the setup has it, and parts of it changed alone."""
    chosen = {group: ABLATION[group] for group in groups}
    variants = [Variant(label="DAT", model="dat"), *(variant for found in chosen.values() for variant in found)]
    results = run_all(setup, Journal(folder), variants, seeds, stage)
    group_of = {variant.label: group for group, found in chosen.items() for variant in found}
    rows = {
        label: {"group": group_of.get(label, ""), **summarise(runs, results["DAT"])} for label, runs in results.items()
    }
    return {"experiment": "ablation", **_about(setup, seeds, results), "baseline": "DAT", "results": rows}
