"""Writes the table of formats of docs/formats.md, by bringing each to the reader."""

import tempfile
from pathlib import Path

from feature_repo.card import CardError, load_card
from feature_repo.reader.dataset import check_dataset
from tests.feature_repo.formats import GROUPS, Format

TABLE = Path(__file__).parents[2] / "docs" / "formats.md"
HEAD = """# What the reader reads

Each line is a log that the tests bring: read row by row as it is, or refused by `dat data check` in the words shown.
`python -m tests.feature_repo.format_table` writes this page.
"""


def table(scratch: Path) -> str:
    """The page."""
    lines = [HEAD]
    for group, forms in GROUPS.items():
        lines += [f"\n## {group}\n", "| log | result |", "|---|---|"]
        lines += [f"| {_cell(form.name)} | {_result(form, scratch / f'{group} {n}')} |" for n, form in enumerate(forms)]
    return "\n".join(lines) + "\n"


def _result(form: Format, folder: Path) -> str:
    try:
        card = load_card(form.bring(folder))
        report = check_dataset(card, Path(card.folder), 1.0)
    except CardError as error:
        return "refused: " + _cell(str(error).replace(f"{folder}/", "").replace(str(folder), "its folder"))
    said = [f"{count} left out: {reason}" for reason, count in report.dropped.items()]
    said += [
        problem.replace(f"{folder}/", "")
        for problem in report.problems
        if not any(of_the_days in problem for of_the_days in ("partial", "all clicks are of", "HR@100"))
    ]
    return _cell("; ".join(["read", *said]))


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        TABLE.write_text(table(Path(scratch)))
