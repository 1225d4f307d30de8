"""``dat data``: look at a log before anything runs on it, or have a first card written for it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.options import Json, here
from cli.progress import console
from model.settings.settings import load_settings

if TYPE_CHECKING:
    from feature_repo.reader.dataset import DatasetReport

data = typer.Typer(no_args_is_help=True, help="Look at a log before anything runs on it: check a card, or write one.")
_BARS = 30


@data.command()
def check(
    card: Annotated[str, typer.Argument(help="The dataset card: a name or a TOML file.")],
    json_file: Json = None,
) -> None:
    """Read a card's log and catalogues as a night would, and show what is in them and what is not kept, and why.

    Nothing is written. What cannot be right is refused, with the file, the row, the value and what to do.
    """
    from feature_repo.card import load_card
    from feature_repo.reader.dataset import check_dataset
    from feature_repo.source import dataset_folder

    settings, chosen = load_settings(), load_card(card)
    folder = dataset_folder(chosen, settings.data, settings.home / "downloads")
    with console.status(f"reading {chosen.title}"):
        report = check_dataset(chosen, folder, settings.night.rules.max_invalid)
    if json_file:
        json_file.write_text(report.model_dump_json(indent=2))
    _show(report, chosen.clicks.events)


def _show(report: "DatasetReport", events: dict[str, float]) -> None:
    from rich.table import Table

    lines = {"rows": report.tell(), "queries": f"{report.queries:,}", "items": f"{report.items:,}"}
    if report.first:
        lines["time"] = f"{report.first} to {report.last}, {len(report.days)} days with clicks"
    if report.types:
        lines["types"] = ", ".join(
            f"{name} {count:,}{_weight(events.get(name, 1))}" for name, count in list(report.types.items())[:8]
        )
    if report.clicks != report.rows:
        lines["clicks"] = f"{report.clicks:,}: the other rows land in the lake, and nothing learns from them"
    if report.unknown_items is not None:
        lines["items unknown"] = f"{report.unknown_items:,} clicks are on items that the catalogue lacks"
    for side, catalogue in report.catalogues.items():
        lines[f"{side} catalogue"] = catalogue.tell()
        if catalogue.unknown:
            lines[f"{side}: no value"] = ", ".join(f"{name} {count:,}" for name, count in catalogue.unknown.items())
    facts = Table.grid(padding=(0, 2))
    for name, text in lines.items():
        facts.add_row(f"[bold]{name}[/]", text)
    console.print(facts)
    most = max(report.days.values(), default=1)
    shown = list(report.days.items())[-14:]
    for day, count in shown:
        console.print(f"  {day} {'█' * max(1, round(_BARS * count / most))} {count:,}", markup=False)
    if report.examples:
        rows = Table(*report.examples[0], title="The first rows, as read", title_justify="left")
        for row in report.examples:
            rows.add_row(*(str(value) for value in row.values()))
        console.print(rows)
    for problem in report.problems:
        console.print(f"[yellow]![/] {problem}", soft_wrap=True)


def _weight(weight: float) -> str:
    """What to say of a type that is no click."""
    return "" if weight > 0 else " (against the item)" if weight < 0 else " (weighs 0)"


@data.command()
def init(
    files: Annotated[list[Path], typer.Argument(help="The log's files, and those of the catalogues.")],
    out: Annotated[Path, typer.Option("--out", callback=here, help="The card to write.")] = Path("card.toml"),
) -> None:
    """Write a first card for some files: their columns, the times' unit and the format are guessed, and said."""
    from feature_repo.card import CardError
    from feature_repo.reader.guess import guess

    if out.exists():
        raise CardError(f"{out} exists; give another name with --out")
    card = guess(files, out.absolute().parent, out.stem)
    out.write_text(card.text)
    for line in card.said:
        console.print(line, soft_wrap=True, markup=False)
    console.print(f"wrote {out}; look at it, then: dat data check {out}", markup=False, soft_wrap=True)
