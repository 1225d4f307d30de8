"""``dat experiment``: the evidence, resumable: table2, dimension, ablation, online."""

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from cli.settings import Data, Home, evaluation_settings, load_settings


def experiment(
    name: Annotated[
        str,
        typer.Argument(
            help="table2: every model tuned alike, then with seeds · dimension: against the size of the augmented "
            "vectors · ablation: each part of DAT changed alone · online: seven days of an A/B test in a simulator."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Where finished runs are kept, and JSON and the page written.")],
    data: Data = None,
    protocol: Annotated[
        Literal["window", "nightly", "last-out", "live"] | None,
        typer.Option(help="As in `dat evaluate`; by default last-out where the card says so, else live."),
    ] = None,
    models: Annotated[str, typer.Option(help="table2: names, separated by commas, or all.")] = "all",
    trials: Annotated[int, typer.Option(min=1, help="table2: settings tried of every model.")] = 10,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each that learns at random.")] = 5,
    sizes: Annotated[str, typer.Option(help="dimension: sizes of a single augmented vector.")] = "8,16,32,64,128",
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
    if name == "online":
        result = _online(out, stage, _names(arms, None), users, items, days, epochs, seed)
    elif name in ("table2", "dimension", "ablation"):
        from training.experiments import plans
        from training.models import MODELS

        setup = _setup(load_settings(home=home, dataset=data), protocol, limit, newest, queries)
        if name == "table2":
            result = plans.table2(setup, out, _names(models, MODELS), trials, seeds, stage)
        elif name == "dimension":
            result = plans.dimension(setup, out, _numbers(sizes), seeds, stage)
        else:
            result = plans.ablation(setup, out, _names(groups, plans.ABLATION), seeds, stage)
    else:
        raise CardError(f"no experiment {name}; there are: table2, dimension, ablation, online")
    from training.experiments.report import page

    (out / f"{name}.json").write_text(json.dumps(result, indent=2))
    (out / f"{name}.html").write_text(page(result))
    console.print(f"{out / f'{name}.html'} and {name}.json are written")


def _setup(settings, protocol: str | None, limit: int | None, newest: int | None, queries: int | None):
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    from feature_repo.source import dataset_folder, read_clicks, read_profiles
    from training.experiments.runs import Setup
    from training.protocols import protocol_of

    card = settings.card
    folder = dataset_folder(card, Path(settings.data), settings.home / "downloads")
    clicks = read_clicks(card, folder)
    if newest is not None:
        clicks = clicks.slice(max(0, len(clicks) - newest))
    if queries is not None:
        ids = np.unique(clicks["query_id"].to_numpy())
        chosen = np.random.default_rng(0).permutation(ids)[:queries]
        clicks = clicks.filter(pc.is_in(clicks["query_id"], pa.array(chosen, pa.string())))
    profiles = {side: read_profiles(card, folder, side) for side in ("query", "item")}
    training = evaluation_settings(settings)
    return Setup(clicks, profiles, card, protocol or protocol_of(card), limit, card.evaluate.negatives, training)


def _online(out: Path, stage, arms: list[str], users: int, items: int, days: int, epochs: int | None, seed: int):
    from feature_repo.card import CardError
    from training.experiments.online import OnlineConfig, run
    from training.models import MODELS

    if len(arms) != 2 or not set(arms) <= set(MODELS):
        raise CardError(f"--arms takes two models, such as two-tower,dat; there are: {', '.join(MODELS)}")
    settings = {arm: {"epochs": epochs} for arm in arms} if epochs else {}
    config = OnlineConfig(users=users, items=items, days=days, arms=tuple(arms), settings=settings, seed=seed)
    held = out / "online-config.json"
    if held.is_file() and held.read_text() != config.model_dump_json():
        raise CardError(f"{out} holds days of another test ({held.name} says which); give another folder with --out")
    held.write_text(config.model_dump_json())
    return run(config, out / "days", stage)


def _names(text: str, known) -> list[str]:
    """Names separated by commas; ``all`` are all that are known."""
    from feature_repo.card import CardError

    names = list(known) if text == "all" and known else [name.strip() for name in text.split(",")]
    unknown = [name for name in names if known and name not in known]
    if unknown:
        raise CardError(f"no {', '.join(unknown)}; there are: {', '.join(known)}")
    return names


def _numbers(text: str) -> list[int]:
    from feature_repo.card import CardError

    try:
        return [int(number) for number in text.split(",")]
    except ValueError:
        raise CardError(f"--sizes takes numbers separated by commas, such as 8,16,32; not {text}") from None
