"""``dat tune``: settings for a log, found on its tuning cut."""

import hashlib
import json
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.evidence import write_evidence
from cli.options import Home, Json
from model.settings.settings import load_settings

if TYPE_CHECKING:
    from evaluation.studies.runs import Setup
    from evaluation.studies.steps import Trial


def tune(
    card: Annotated[str, typer.Argument(help="The dataset card: a name or a TOML file.")],
    minutes: Annotated[float, typer.Option(min=0, help="Begin no further step after so many minutes.")] = 60.0,
    limit: Annotated[int, typer.Option(min=100, help="Only the first so many clicks of the tuning cut.")] = 20_000,
    newest: Annotated[int | None, typer.Option(min=100, help="Only the log's newest so many clicks.")] = None,
    trials: Annotated[
        int | None, typer.Option(min=1, help="Only so many trials, the first being the card's own.")
    ] = None,
    write: Annotated[bool, typer.Option("--write", help="Put the settings into the card's training table.")] = False,
    home: Home = None,
    json_file: Json = None,
) -> None:
    """Find settings for a log by a short search, and say what each is worth.

    Each step changes one thing of the best so far, trains DAT without the newest clicks that are predicted (the day, or
    each query's click, before the test's) and keeps the change if hit rates grow by more than a per cent, and would for
    other people, too. The search never sees the test. It ends in a training table, which --write puts into the card.

    Finished trials stay in the home's `tuning` folder: the same command goes on where it was stopped, and one with more
    --minutes or --trials goes further. Another card or log begins anew.
    """
    from cli.experiment import setup_of
    from cli.progress import TerminalProgress, console
    from evaluation.studies.runs import Journal
    from evaluation.studies.steps import STEPS, search
    from feature_repo.atomic import atomic_write
    from feature_repo.card import CardError, load_card

    settings = load_settings(home=home, dataset=card)
    file = Path(card)
    if write and not file.is_file():
        raise CardError(f"--write needs the path of a card's file; {card} is none")
    setup = setup_of(settings, None, limit, newest, None)
    until = time.monotonic() + 60 * minutes
    journal = Journal(settings.home / "tuning" / f"{settings.card.name}-{_digest(setup)}")
    if journal.runs:
        console.print(f"{len(journal.runs)} finished trials are in {journal.folder}", markup=False, soft_wrap=True)
    found = search(
        setup, settings.night_of(settings.card).model.model_dump(), TerminalProgress().stage, journal,
        STEPS, enough=lambda done: time.monotonic() > until or (trials is not None and done >= trials),
    )  # fmt: skip
    console.print(_shown(found))
    text = training_table(found)
    if [trial for trial in found if trial.kept] == found[:1]:
        tried = f"{len(found) - 1} of {len(STEPS)} changes were tried"
        console.print(f"{tried}, and none helped by more than chance: leave the card as it is", markup=False)
    elif write:
        with atomic_write(file) as staging:
            staging.write_text(with_training(file.read_text(), text))
        load_card(file)
        console.print(f"{file} has these lines now, and the next night trains with them:", markup=False, soft_wrap=True)
        console.print(text, markup=False, soft_wrap=True, highlight=False)
    else:
        where = f"at the end of {file}" if file.is_file() else "at the end of the card"
        console.print(
            f"Put these lines {where}, in place of a [training] table that it has (--write does):",
            markup=False, soft_wrap=True,
        )  # fmt: skip
        console.print(text, markup=False, soft_wrap=True, highlight=False)
    if json_file:
        trials_made = [trial.model_dump() for trial in found]
        write_evidence(json_file, {"card": settings.card.name, "trials": trials_made, "training": text})


def _digest(setup: "Setup") -> str:
    """A hash of the log, the card and the questions, without which trials are not comparable."""
    import pyarrow as pa
    from pandas.util import hash_pandas_object

    digest = hashlib.sha256(json.dumps([setup.identity, setup.card.model_dump(mode="json")]).encode())
    for table in (setup.clicks, *setup.catalogues.values()):
        for column in table.columns:
            values = column.to_pandas()
            if pa.types.is_list(column.type):
                values = values.map(str)  # pandas hashes no lists
            digest.update(str(hash_pandas_object(values).sum()).encode())
    return digest.hexdigest()[:12]


def _shown(trials: "list[Trial]") -> Any:
    from rich.table import Table

    table = Table(title="Steps on the tuning cut", title_justify="left")
    table.add_column("step")
    for column in ("HR@50", "HR@100", "MRR×10", "gain", "s"):
        table.add_column(column, justify="right")
    for n, trial in enumerate(trials):
        gain = "" if not n else f"{trial.value / trial.best_before - 1:+.1%}" if trial.best_before else "–"
        gain += f" ({trial.sure:.0%} sure)" if n else ""
        cells = [f"{value:.3f}" for value in (trial.hr50, trial.hr100, trial.mrr10)]
        table.add_row(
            trial.name, *cells, f"[green]{gain}, kept[/]" if n and trial.kept else gain, f"{trial.seconds:.0f}"
        )
    return table


def training_table(trials: "list[Trial]") -> str:
    """The [training] table of what was kept, with why."""
    kept = [trial for trial in trials if trial.kept]
    best = kept[-1]
    why = [f"# {trial.name}: {trial.value / trial.best_before - 1:+.1%}" for trial in kept[1:] if trial.best_before]
    lines = ["[training] # by dat tune, on the tuning cut", *why, f"negatives = {best.negatives}"]
    if best.settings:
        lines += ["", "[training.model]", *(f"{name} = {_value(value)}" for name, value in best.settings.items())]
    return "\n".join(lines) + "\n"


def with_training(card: str, table: str) -> str:
    """A card's text with this [training] table in place of its own."""
    lines, inside, kept = card.splitlines(), False, list[str]()
    for line in lines:
        if re.match(r"\s*\[", line):
            inside = re.match(r"\s*\[training[\].]", line) is not None
        if not inside:
            kept.append(line)
    return "\n".join(kept).rstrip() + "\n\n" + table


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{name} = {_value(part)}" for name, part in value.items()) + " }"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_value, value)) + "]"
    return str(value).lower() if isinstance(value, bool) else f'"{value}"' if isinstance(value, str) else repr(value)
