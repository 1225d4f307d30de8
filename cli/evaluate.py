"""``dat evaluate``: DAT and its rivals on a dataset, by one protocol, as a table."""

import json
import statistics
import time
from pathlib import Path
from typing import Annotated, get_args

import typer

from cli.settings import Data, Home, Json, evaluation_settings, load_settings

KEYS = ("hr50", "hr100", "mrr10")


def evaluate(
    data: Data = None,
    protocol: Annotated[
        str | None,
        typer.Option(
            help="window: the card's days, then the day after, vectors as the night left them · nightly: the same, but "
            "learnt so, too: of each day with what the night before it knew · last-out: each query's last click · "
            "live: the last day (or tenth) of the clicks, each folded in before the next is asked. By default last-out "
            "where the card says so, else live."
        ),
    ] = None,
    models: Annotated[
        str, typer.Option(help="Names, separated by commas; all: every one. An unknown name lists them.")
    ] = "dat,two-tower,item-cf,popularity",
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each model that learns at random.")] = 1,
    limit: Annotated[int | None, typer.Option(help="Only the first so many test clicks.")] = None,
    negatives: Annotated[
        int | None, typer.Option(min=1, help="Random negatives for each positive (S in the paper) [the card's, or 4].")
    ] = None,
    tuning: Annotated[
        bool, typer.Option("--tuning", help="Ask the day (or click) before the test's instead: to choose settings by.")
    ] = False,
    leave_out_seen: Annotated[
        bool | None,
        typer.Option(
            "--leave-out-seen/--keep-seen",
            help="Whether answers leave out what the query has clicked. By default they do where few click twice.",
        ),
    ] = None,
    home: Home = None,
    json_file: Json = None,
) -> None:
    """Train models on a window of clicks and measure how often they find the next click's item.

    HR@50 and HR@100 are the shares of test clicks whose item is among the first 50 and 100 of the whole corpus; MRR×10
    is ten times the mean of 1/rank. Equal scores count against the model. Items that a query has clicked are left out
    where few click twice, as the service does; a click that repeats one is then missed. With several seeds the table
    shows the mean, and ± the standard deviation.

    The figures are exact. Where scores are inner products, the same clicks are also looked up in a Faiss index like
    the service's, kept up to date as there; its answers are 100 items long, so its MRR×10 is compared with the exact
    one cut off at 100.

    The models dat, dat-cal and two-tower are trained with what the card's [evaluate] found best on its tuning cut;
    what the settings say of the night's model goes before it, such as DAT_NIGHT__MODEL__EPOCHS=10. The published
    variants stay as published. Of the card the neural rivals take the length of vectors and the logQ's window.
    """
    settings = load_settings(home=home, dataset=data)
    from training.protocols import protocol_of

    protocol = protocol or protocol_of(settings.card)
    result = compare(settings, protocol, models, seeds, limit, negatives, tuning, leave_out_seen)
    if json_file:
        json_file.write_text(json.dumps(result, indent=2))


def compare(
    settings, protocol: str, models: str, seeds: int, limit: int | None, negatives: int | None, tuning: bool = False,
    filter_seen: bool | None = None,
) -> dict:  # fmt: skip
    """Run the comparison, show its table, and return what ``--json`` writes."""
    from cli.progress import console
    from feature_repo.card import CardError
    from feature_repo.source import dataset_folder, read_clicks, read_profiles
    from training.models import DETERMINISTIC, MODELS, applicable
    from training.protocols import Protocol, make_trial

    names = list(MODELS) if models == "all" else [name.strip() for name in models.split(",")]
    unknown = [name for name in names if name not in MODELS]
    if unknown:
        raise CardError(f"no model {', '.join(unknown)}; there are: {', '.join(MODELS)}")
    if protocol not in get_args(Protocol):
        raise CardError(f"no protocol {protocol}; there are: {', '.join(get_args(Protocol))}")
    card = settings.card
    folder = dataset_folder(card, Path(settings.data), settings.home / "downloads")
    clicks = read_clicks(card, folder)
    profiles = {side: read_profiles(card, folder, side) for side in ("query", "item")}
    given = evaluation_settings(settings)
    negatives = negatives or card.evaluate.negatives
    results: dict[str, dict] = {}
    with _progress(console) as progress:
        for seed in range(seeds):
            trial = make_trial(clicks, profiles, card, protocol, negatives, seed, limit, tuning, filter_seen)
            for name in names:
                if seed and name in DETERMINISTIC:
                    continue
                run = _run(name, seed, applicable(name, given), trial, progress)
                results.setdefault(name, {"runs": []})["runs"].append(run)
    summary = {
        "dataset": card.name,
        "protocol": protocol,
        "tuning": tuning,
        "train_clicks": len(trial.window.examples),
        "test_clicks": len(trial.replay),
        "negatives": negatives,
        "settings": given,
        "filter_seen": trial.filter_seen,
        "results": {name: _mean(result["runs"]) for name, result in results.items()},
    }
    console.print(_table(summary))
    for name, result in summary["results"].items():
        if collapsed := [run["health"] for run in result["runs"] if run.get("health", {}).get("collapsed")]:
            rank, dead = (statistics.fmean(health[key] for health in collapsed) for key in ("item_rank", "dead_units"))
            console.print(
                f"[bold red]{name} collapsed[/] in {len(collapsed)} of {len(result['runs'])} runs: its item vectors "
                f"have an effective rank of {rank:.1f}, {dead:.0%} of their units are dead."
            )
    return summary


def _run(name: str, seed: int, chosen: dict, trial, progress) -> dict:
    import numpy as np

    from cli.through_index import DEPTH, ThroughIndex
    from training.evaluation import MISS, measure, report, summarise
    from training.models import build

    model = build(name, seed, **chosen)
    task = progress.add_task(f"{name}, seed {seed}: learning", total=None)
    started = time.perf_counter()
    model.fit(trial.window)
    learnt = time.perf_counter()
    progress.update(task, description=f"{name}, seed {seed}: asked", total=len(trial.replay))
    scorer, index = model.scorer(trial.replay, trial.live), ThroughIndex()
    found = measure(scorer, trial.replay, trial.filter_seen, lambda done: progress.update(task, completed=done), index)
    seconds = {"fit": learnt - started, "evaluate": time.perf_counter() - learnt}
    progress.remove_task(task)
    whole = report(found, trial.replay)
    parts = {part: metrics.model_dump() for part, metrics in whole.parts.items() if metrics.clicks}
    run = {**whole.all.model_dump(), "parts": parts, "seconds": seconds}
    if index.found:
        faiss = summarise(np.concatenate(index.found)).model_dump(include=set(KEYS))
        exact = summarise(np.where(found <= DEPTH, found, MISS))
        run |= {"faiss": faiss, "faiss_minus_exact": {key: faiss[key] - getattr(exact, key) for key in KEYS}}
    if history := getattr(getattr(model, "fitted", None), "history", None):
        last = history[-1]
        run["health"] = {"item_rank": last.item_rank, "dead_units": last.dead_units, "collapsed": last.collapsed}
    return run


def _mean(runs: list[dict]) -> dict:
    """The means over seeds, their standard deviations under ``std``, and the runs themselves."""
    mean = {key: statistics.fmean(run[key] for run in runs) for key in KEYS}
    spread = {key: statistics.stdev(run[key] for run in runs) if len(runs) > 1 else 0.0 for key in KEYS}
    parts = {
        part: {key: statistics.fmean(run["parts"][part][key] for run in runs) for key in ("clicks", *KEYS)}
        for part in runs[0]["parts"]
    }
    through = {
        which: {key: statistics.fmean(run[which][key] for run in runs) for key in KEYS}
        for which in ("faiss", "faiss_minus_exact")
        if which in runs[0]
    }
    return {**mean, "std": spread, **through, "parts": parts, "runs": runs}


def _progress(console):
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    return Progress(
        SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        console=console, transient=True,
    )  # fmt: skip


def _table(summary: dict):
    from rich.table import Table

    title = f"{summary['dataset']}, {summary['protocol']}: {summary['train_clicks']:,} clicks to learn from, "
    table = Table(title=title + f"{summary['test_clicks']:,} asked")
    table.add_column("model")
    for column in ("HR@50", "HR@100", "MRR×10", "Faiss: difference", "both known", "new queries", "fit s"):
        table.add_column(column, justify="right")
    best = {key: max(result[key] for result in summary["results"].values()) for key in KEYS}
    for name, result in summary["results"].items():
        cells = []
        for key in KEYS:
            text = f"{result[key]:.3f}" + (f" ±{result['std'][key]:.3f}" if len(result["runs"]) > 1 else "")
            cells.append(f"[bold green]{text}[/]" if result[key] == best[key] else text)
        difference = result.get("faiss_minus_exact")
        cells.append(" ".join(f"{difference[key]:+.3f}" for key in KEYS) if difference else "–")
        parts = [result["parts"].get(part) for part in ("known", "new queries")]
        cells += [" ".join(f"{part[key]:.3f}" for key in best) if part else "–" for part in parts]
        table.add_row(name, *cells, f"{statistics.fmean(run['seconds']['fit'] for run in result['runs']):.0f}")
    return table
