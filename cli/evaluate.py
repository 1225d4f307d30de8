"""``dat evaluate``: DAT and its rivals on a dataset, by one protocol, as a table."""

import hashlib
import json
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast, get_args

import typer

from cli.evidence import write_evidence
from cli.options import Data, Home, Json
from model.settings.settings import DEFAULT_NEGATIVES, Settings, load_settings

if TYPE_CHECKING:
    import numpy as np
    from rich.console import Console
    from rich.progress import Progress
    from rich.table import Table

    from evaluation.splits import Split

KEYS = ("hr50", "hr100", "mrr10")


def evaluate(
    data: Data = None,
    protocol: Annotated[
        str | None,
        typer.Option(
            help="night: the split of `dat nightly`, live and static · live: the last day (or tenth) of the log, "
            "each folded in once it was predicted · window: the card's days, then the day after, vectors of the cut · "
            "last-out: each query's last click · published: the same, with the last but one as history and neither in "
            "training. By default last-out where the card says so or the log has no times, else live."
        ),
    ] = None,
    models: Annotated[
        str, typer.Option(help="Names, separated by commas; all: every one. An unknown name lists them.")
    ] = "dat,two-tower,item-cf,popularity",
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each model that learns at random.")] = 1,
    limit: Annotated[int | None, typer.Option(help="Only the first so many test clicks.")] = None,
    newest: Annotated[int | None, typer.Option(min=100, help="Only the log's newest so many clicks.")] = None,
    negatives: Annotated[
        int | None, typer.Option(min=1, help="Random negatives for each positive (S in the paper) [the card's, or 4].")
    ] = None,
    tuning: Annotated[
        bool, typer.Option("--tuning", help="Predict the day (or click) before the test's: to choose settings by.")
    ] = False,
    exclude_seen: Annotated[
        bool | None,
        typer.Option(
            "--exclude-seen/--keep-seen",
            help="Whether answers leave out what the query has clicked. By default where repeats are rare (< 5 %).",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Keep finished runs in this folder: the same command goes on where it was stopped."),
    ] = None,
    home: Home = None,
    json_file: Json = None,
) -> None:
    """Train models on a window of clicks and measure how often they find the next click's item.

    HR@N is the share of test clicks whose item is among the first N of the whole corpus; NDCG@N discounts later places;
    MRR×10 is ten times the mean of 1/rank. Equal scores count against the model. What predicts a click is what was
    known before its moment. With several seeds the table shows the mean, and ± the standard deviation.

    The training set, the model's settings and the replay are those of `dat nightly`: the card's [training], overridden
    by what is set for the night, such as DAT_NIGHT__MODEL__EPOCHS=10. The published variants stay as published. Of the
    settings, neural rivals take the vectors' length and the logQ window.

    The figures are exact. Where scores are inner products, the same clicks are also looked up in a Faiss index like
    the service's; its answers are 100 items long, so its MRR×10 is compared with the exact one cut off at 100.
    """
    settings = load_settings(home=home, dataset=data)
    from evaluation.splits import protocol_of

    protocol = protocol or protocol_of(settings.card)
    result = compare(settings, protocol, models, seeds, limit, negatives, tuning, exclude_seen, out, newest)
    if json_file:
        write_evidence(json_file, result)


def compare(
    settings: Settings, protocol: str, models: str, seeds: int, limit: int | None, negatives: int | None,
    tuning: bool = False, excludes_seen: bool | None = None, out: Path | None = None, newest: int | None = None,
) -> dict:  # fmt: skip
    """Run the comparison, show its table, and return what ``--json`` writes.

    Args:
        newest: Only the log's newest so many clicks.
        out: Where finished runs are kept. A run is done again when its log, settings or seed differ, not when the code
            does.
    """
    from cli.progress import console
    from evaluation.bootstrap import difference
    from evaluation.models import DETERMINISTIC, MODELS, applicable
    from evaluation.splits import Protocol, make_split
    from feature_repo.card import CardError
    from feature_repo.reader.dataset import read_dataset
    from feature_repo.source import dataset_folder
    from model.closed_form_choice import ClosedFormChoice
    from training.chosen import chosen as what_was_chosen

    names = list(MODELS) if models == "all" else [name.strip() for name in models.split(",")]
    unknown = [name for name in names if name not in MODELS]
    if unknown:
        raise CardError(f"no model {', '.join(unknown)}; there are: {', '.join(MODELS)}")
    if protocol not in get_args(Protocol):
        raise CardError(f"no protocol {protocol}; there are: {', '.join(get_args(Protocol))}")
    card = settings.card
    if protocol == "night" and card.clicks.timeless:
        protocol = "last-out"
    folder = dataset_folder(card, Path(settings.data), settings.home / "downloads")
    night = settings.night_of(card)
    log = read_dataset(card, folder, night.rules.max_invalid)
    for line in (log.report.tell(), *log.report.problems):
        console.print(f"  {line}", style="dim", markup=False, soft_wrap=True)
    given = settings.model_settings(card)
    clicks = log.clicks if newest is None else log.clicks.slice(max(0, len(log.clicks) - newest))
    negatives = negatives or night.negatives or DEFAULT_NEGATIVES
    limit = limit or (night.test_clicks if protocol == "night" else None)
    results: dict[str, dict] = {}
    ranks: dict[str, list[np.ndarray]] = {}
    with _progress(console) as progress:
        for seed in range(seeds):
            split = make_split(
                clicks, log.catalogues, card, cast(Protocol, protocol), negatives, night.seed + seed, limit, tuning,
                excludes_seen, night.window_days, night.rules.min_day,
            )  # fmt: skip
            for name in names:
                if seed and name in DETERMINISTIC:
                    continue
                chosen, number = applicable(name, given), night.model.seed + seed
                kept = _Kept(out, card.name, [split.digest, protocol, name, number, chosen]) if out else None
                run, found = (kept and kept.load()) or _run(name, number, chosen, split, protocol, progress)
                if kept:
                    kept.save(run, found)
                ranks.setdefault(name, []).append(found)
                results.setdefault(name, {"runs": []})["runs"].append(run)
    of_dat = results["dat"]["runs"][0].get("closed_form") if "dat" in results else None
    choice = of_dat and ClosedFormChoice.model_validate(of_dat)
    why = what_was_chosen(split.data, night.model_copy(update={"negatives": negatives}), choice)
    summary = {
        "dataset": card.name,
        "protocol": protocol,
        "log": log.report.model_dump(exclude={"days", "examples"}),
        "newest": newest,
        "tuning": tuning,
        "ties": card.clicks.ties,
        "train_clicks": len(split.data),
        "test_clicks": results[names[0]]["runs"][0]["clicks"],
        "negatives": negatives,
        "settings": given,
        "chosen": why,
        "excludes_seen": split.test.excludes_seen,
        "results": {name: _mean(result["runs"]) for name, result in results.items()},
        "against": names[0],
    }
    for name, value in why.items():
        console.print(f"  {name} = {value}", style="dim", markup=False, soft_wrap=True)
    for name in names[1:]:
        scored = slice(None) if split.test.scored is None else split.test.scored
        ours, theirs = ([found[scored] for found in ranks[which]] for which in (names[0], name))
        summary["results"][name]["difference"] = difference(ours, theirs, split.test.clicks.queries[scored])
    console.print(_table(summary))
    for name in names[1:]:
        gaps = summary["results"][name]["difference"].items()
        text = ", ".join(f"{key} {mean:+.4f} [{low:+.4f}, {high:+.4f}]" for key, (mean, low, high) in gaps)
        console.print(
            f"  {names[0]} less {name} (95 %, over people): {text}", style="dim", markup=False, soft_wrap=True
        )
    for name, result in summary["results"].items():
        if collapsed := [run["health"] for run in result["runs"] if run.get("health", {}).get("collapsed")]:
            rank, dead = (statistics.fmean(health[key] for health in collapsed) for key in ("item_rank", "dead_units"))
            console.print(
                f"[bold red]{name} collapsed[/] in {len(collapsed)} of {len(result['runs'])} runs: its item vectors "
                f"have an effective rank of {rank:.1f}, {dead:.0%} of their units are dead."
            )
    return summary


class _Kept:
    """A finished run in a folder: its figures, and the rank of each test click."""

    def __init__(self, folder: Path, dataset: str, made_from: list):
        key = hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()[:16]
        self.folder = folder / f"{dataset}-{key}"

    def load(self) -> "tuple[dict, np.ndarray] | None":
        import numpy as np

        if not self.folder.is_dir():
            return None
        return json.loads((self.folder / "run.json").read_text()), np.load(self.folder / "ranks.npy")

    def save(self, run: dict, ranks: "np.ndarray") -> None:
        import numpy as np

        from feature_repo.atomic import atomic_write

        if not self.folder.is_dir():
            with atomic_write(self.folder) as staging:
                staging.mkdir(parents=True)
                (staging / "run.json").write_text(json.dumps(run))
                np.save(staging / "ranks.npy", ranks)


def _run(
    name: str, seed: int, chosen: dict, split: "Split", protocol: str, progress: "Progress"
) -> "tuple[dict, np.ndarray]":
    import numpy as np

    from evaluation.faiss_ranks import DEPTH, FaissRanks
    from evaluation.metrics import MISS, Metrics, report
    from evaluation.models import DATRetriever, build
    from evaluation.ranks import rank_clicks

    model = build(name, seed, **chosen)
    task = progress.add_task(f"{name}, seed {seed}", total=None)
    started = time.perf_counter()
    if isinstance(model, DATRetriever):
        progress.update(task, description=f"{name}, seed {seed}: choosing the closed form's weight")
        model.choose(split.data)
    progress.update(task, description=f"{name}, seed {seed}: training")
    model.fit(split.data, split.cut_ms)
    trained = time.perf_counter()
    progress.update(task, description=f"{name}, seed {seed}: evaluating", total=len(split.test))
    index = FaissRanks()
    ranks = rank_clicks(
        model.scorer(split.test, split.live), split.test, lambda done: progress.update(task, completed=done), index
    )
    seconds = {"fit": trained - started, "evaluate": time.perf_counter() - trained}
    whole = report(ranks, split.test)
    parts = {part: metrics.model_dump() for part, metrics in whole.parts.items() if metrics.clicks}
    run = {**whole.all.model_dump(), "parts": parts, "seconds": seconds}
    if protocol == "night":
        static = rank_clicks(model.scorer(split.test, live=False), split.test)
        run["static"] = report(static, split.test).all.model_dump()
    progress.remove_task(task)
    if index.parts:
        keys = set(KEYS)
        faiss = Metrics.of(np.concatenate(index.parts)).model_dump(include=keys)
        exact = Metrics.of(np.where(ranks <= DEPTH, ranks, MISS))
        run |= {"faiss": faiss, "faiss_minus_exact": {key: faiss[key] - getattr(exact, key) for key in KEYS}}
    if epochs := getattr(getattr(model, "trained", None), "epochs", None):
        last = epochs[-1]
        run["health"] = {"item_rank": last.item_rank, "dead_units": last.dead_units, "collapsed": last.collapsed}
    if isinstance(model, DATRetriever) and model.choice:
        run["closed_form"] = model.choice.model_dump()
    return run, ranks


def _mean(runs: list[dict]) -> dict:
    """The means over seeds, their standard deviations under ``std``, and the runs themselves."""
    rates = [key for key in runs[0] if isinstance(runs[0][key], float)]
    mean = {key: statistics.fmean(run[key] for run in runs) for key in rates}
    spread = {key: statistics.stdev(run[key] for run in runs) if len(runs) > 1 else 0.0 for key in rates}
    parts = {
        part: {key: statistics.fmean(run["parts"][part][key] for run in runs) for key in ("clicks", *KEYS)}
        for part in runs[0]["parts"]
    }
    nested = {
        which: {key: statistics.fmean(run[which][key] for run in runs) for key in KEYS}
        for which in ("static", "faiss", "faiss_minus_exact")
        if which in runs[0]
    }
    return {**mean, "std": spread, **nested, "parts": parts, "runs": runs}


def _progress(console: "Console") -> "Progress":
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    return Progress(
        SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        console=console, transient=True,
    )  # fmt: skip


def _table(summary: dict) -> "Table":
    from rich.table import Table

    title = f"{summary['dataset']}, {summary['protocol']}: {summary['train_clicks']:,} training clicks, "
    table = Table(title=title + f"{summary['test_clicks']:,} to predict")
    table.add_column("model", no_wrap=True)
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
