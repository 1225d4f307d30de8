"""The offline experiments: which variants they run, and how runs become rows of a table."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from evaluation.metrics import MISS
from evaluation.studies.runs import Array, Journal, Run, Setup, Stage, Variant, run_all
from evaluation.studies.significance import hits, paired
from evaluation.studies.tuning import tune

METRICS = ("hr50", "hr100", "mrr10")


class Comparison(NamedTuple):
    """One of the documents' comparisons: what ``dat evaluate`` is asked."""

    data: str
    protocol: str
    models: str
    seeds: int
    limit: int | None = None


SEQUENCES = "gru4rec,sasrec,hstu"
SIMPLE = "item-cf,popularity"
EVIDENCE = (
    Comparison("movielens-100k", "night", f"dat,{SEQUENCES},gru4rec-fresh,ease,dat-amm,two-tower,{SIMPLE}", 5),
    Comparison("amazon-beauty", "last-out", f"dat,{SEQUENCES},ease,dat-amm,{SIMPLE}", 3),
    Comparison("amazon-sports", "last-out", f"dat,{SEQUENCES},ease,dat-amm,{SIMPLE}", 2),
    Comparison("globo-news", "live", "dat,gru4rec-fresh,mvke,popularity-hour,item-cf", 2, 60_000),
)
ABLATION: dict[str, list[Variant]] = {
    "augmented vectors": [
        Variant(label="none: a plain two-tower", model="two-tower"),
        Variant(label="as published, to the letter", model="dat-paper"),
        Variant(label="by gradient, linear head", model="dat-gradient"),
        Variant(label="by gradient, linear head, categories aligned", model="dat-cal"),
        Variant(label="point-in-time moving averages", model="dat-amm"),
    ],
    "memories": [
        Variant(
            label="fixed averages of embeddings", model="dat", settings={"memory": {"learned": False, "second": 0}}
        ),
        Variant(label="one learned layer", model="dat", settings={"memory": {"second": 0}}),
        Variant(label="no time gaps", model="dat", settings={"memory": {"gaps": False}}),
    ],
    "items": [Variant(label="no a_v", model="dat", settings={"memory": {"item_rates": []}})],
    "closed form": [Variant(label="no closed form", model="dat", settings={"closed_form": {"weight": 0}})],
    "negatives": [Variant(label=f"negatives: S = {s}", model="dat", negatives=s) for s in (1, 8)],
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
