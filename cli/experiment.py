"""``dat experiment``: the evidence, resumable: evidence, table2, ablation, online."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer

from cli.evidence import write_evidence
from cli.options import Data, Home, here
from model.settings.settings import DEFAULT_NEGATIVES, Settings, load_settings

if TYPE_CHECKING:
    from evaluation.splits import Protocol
    from evaluation.studies.runs import Setup, Stage


def experiment(
    name: Annotated[
        str,
        typer.Argument(
            help="evidence: DAT and its rivals on the logs of the documents · table2: every model tuned alike, then "
            "with seeds · ablation: each part of DAT changed alone · online: seven days of an A/B test in a simulator."
        ),
    ],
    out: Annotated[
        Path, typer.Option(callback=here, help="Where finished runs are kept, and JSON and the page written.")
    ],
    data: Data = None,
    protocol: Annotated[
        Literal["night", "window", "last-out", "live", "published"] | None,
        typer.Option(help="As in `dat evaluate`, also by default."),
    ] = None,
    models: Annotated[str, typer.Option(help="table2: names, separated by commas, or all.")] = "all",
    trials: Annotated[int, typer.Option(min=1, help="table2: settings tried of every model.")] = 10,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each that learns at random.")] = 5,
    groups: Annotated[str, typer.Option(help="ablation: groups, separated by commas, or all.")] = "all",
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many test clicks.")] = None,
    newest: Annotated[int | None, typer.Option(min=100, help="Only the log's newest so many clicks.")] = None,
    queries: Annotated[int | None, typer.Option(min=10, help="Only the clicks of so many queries, by chance.")] = None,
    arms: Annotated[str, typer.Option(help="online: control and treatment.")] = "two-tower,dat",
    users: Annotated[int, typer.Option(min=20, help="online: people.")] = 2_000,
    items: Annotated[int, typer.Option(min=20, help="online: items.")] = 1_500,
    days: Annotated[int, typer.Option(min=1, help="online: days of the test.")] = 7,
    epochs: Annotated[int | None, typer.Option(min=1, help="online: epochs of each night.")] = None,
    seed: Annotated[int, typer.Option(help="online: of everything.")] = 0,
    home: Home = None,
) -> None:
    """Run an experiment. What is finished stays in --out: the same command goes on where it was stopped.

    Writes NAME.json and NAME.html, a page by itself that loads nothing.
    """
    from cli.progress import TerminalProgress, console
    from feature_repo.card import CardError

    stage = TerminalProgress().stage
    out.mkdir(parents=True, exist_ok=True)
    if name == "evidence":
        _evidence(out, load_settings(home=home, dataset=data), data, limit)
        return
    if name == "online":
        result = _online(out, stage, _names(arms, ()), users, items, days, epochs, seed)
    elif name in ("table2", "ablation"):
        from evaluation.models import MODELS
        from evaluation.studies import plans

        setup = setup_of(load_settings(home=home, dataset=data), protocol, limit, newest, queries)
        if name == "table2":
            result = plans.table2(setup, out, _names(models, MODELS), trials, seeds, stage)
        else:
            result = plans.ablation(setup, out, _names(groups, plans.ABLATION), seeds, stage)
    else:
        raise CardError(f"no experiment {name}; there are: evidence, table2, ablation, online")
    from evaluation.studies.report import page

    write_evidence(out / f"{name}.json", result)
    (out / f"{name}.html").write_text(page(result))
    console.print(f"{out / f'{name}.html'} and {name}.json are written")


def _evidence(out: Path, settings: Settings, data: str | None, limit: int | None) -> None:
    """The comparisons of the documents, each a ``compare-LOG.json``; with a dataset, its one alone."""
    from cli.evaluate import compare
    from evaluation.studies.plans import EVIDENCE
    from feature_repo.card import CardError

    plans = [plan for plan in EVIDENCE if data in (None, plan.data)]
    if not plans:
        raise CardError(f"{data} is none of the documents' logs: {', '.join(plan.data for plan in EVIDENCE)}")
    for plan in plans:
        chosen = settings.model_copy(update={"dataset": plan.data})
        asked = (plan.protocol, plan.models, plan.seeds, limit or plan.limit)
        write_evidence(
            out / f"compare-{Path(plan.data).stem}.json", compare(chosen, *asked, negatives=None, out=out / "runs")
        )


def setup_of(
    settings: Settings, protocol: str | None, limit: int | None, newest: int | None, queries: int | None
) -> "Setup":
    """A dataset and how it is asked; see :func:`experiment`."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    from evaluation.splits import protocol_of
    from evaluation.studies.runs import Setup
    from feature_repo.reader.catalogue import read_catalogue
    from feature_repo.reader.clicks import read_clicks
    from feature_repo.source import dataset_folder

    card = settings.card
    folder = dataset_folder(card, Path(settings.data), settings.home / "downloads")
    clicks = read_clicks(card, folder)
    if newest is not None:
        clicks = clicks.slice(max(0, len(clicks) - newest))
    if queries is not None:
        ids = np.unique(clicks["query_id"].to_numpy())
        sample = np.random.default_rng(0).permutation(ids)[:queries]
        clicks = clicks.filter(pc.is_in(clicks["query_id"], pa.array(sample, pa.string())))
    profiles = {side: read_catalogue(card, folder, side) for side in ("query", "item")}
    negatives = settings.night_of(card).negatives or DEFAULT_NEGATIVES
    chosen = cast("Protocol", protocol or protocol_of(card))
    return Setup(clicks, profiles, card, chosen, limit, negatives, settings.model_settings(card))


def _online(
    out: Path, stage: "Stage", arms: list[str], users: int, items: int, days: int, epochs: int | None, seed: int
) -> dict[str, Any]:
    from evaluation.models import MODELS
    from evaluation.studies.online import OnlineConfig, run
    from feature_repo.card import CardError

    if len(arms) != 2 or not set(arms) <= set(MODELS):
        raise CardError(f"--arms takes two models, such as two-tower,dat; there are: {', '.join(MODELS)}")
    settings = {arm: {"epochs": epochs} for arm in arms} if epochs else {}
    control, treatment = arms
    config = OnlineConfig(users=users, items=items, days=days, arms=(control, treatment), settings=settings, seed=seed)
    held = out / "online-config.json"
    if held.is_file() and held.read_text() != config.model_dump_json():
        raise CardError(f"{out} holds days of another test ({held.name} says which); give another folder with --out")
    held.write_text(config.model_dump_json())
    return run(config, out / "days", stage)


def _names(text: str, known: Iterable[str]) -> list[str]:
    """Names separated by commas; ``all`` are all that are known."""
    from feature_repo.card import CardError

    names = list(known) if text == "all" and known else [name.strip() for name in text.split(",")]
    unknown = [name for name in names if known and name not in known]
    if unknown:
        raise CardError(f"no {', '.join(unknown)}; there are: {', '.join(known)}")
    return names
