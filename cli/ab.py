"""``dat ab``: what an experiment says so far."""

import json
import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.options import Bootstrap, Home, Json
from cli.progress import console
from model.settings.settings import load_settings

if TYPE_CHECKING:
    from rich.table import Table

    from serving.ab.ab_report import Estimate, Verdict


class NoAnswers(RuntimeError):
    """There is nothing to report. The message says what to do."""


def ab(
    experiment: Annotated[
        str | None, typer.Argument(help="The experiment's name; by default that of the settings.")
    ] = None,
    minutes: Annotated[float, typer.Option(min=0.1, help="A click longer after an answer is not its doing.")] = 30,
    days: Annotated[float, typer.Option(min=0.01, help="Only answers of the last so many days.")] = 14,
    home: Home = None,
    bootstrap: Bootstrap = None,
    json_file: Json = None,
) -> None:
    """Report an experiment: clicks per answer in each arm, and which ranker's items are clicked in interleaved lists.

    It joins the topics `impressions` and `clicks`. Intervals are of 95 %, over queries: their clicks hang together.
    """
    settings = load_settings(home=home, bootstrap=bootstrap)
    name = experiment or (settings.serving.experiment and settings.serving.experiment.name)
    if not name:
        raise NoAnswers("no experiment is set; name one: dat ab NAME")
    from cli.nightly import read_outcomes
    from serving.ab.ab_report import judge

    impressions, clicks = read_outcomes(settings, days)
    names = sorted({found for found in impressions["experiment"].to_pylist() if found})
    if name not in names:
        raise NoAnswers(f"no answer of an experiment {name} is logged; there are: {', '.join(names) or 'none'}")
    verdict = judge(name, impressions, clicks, round(minutes * 60_000))
    console.print(_table(verdict))
    if json_file:
        json_file.write_text(json.dumps(_plain(asdict(verdict)), indent=2))


def _table(verdict: "Verdict") -> "Table":
    from rich.table import Table

    table = Table(title=f"experiment {verdict.experiment}", title_justify="left")
    table.add_column("")
    for column in ("queries", "answers", "clicks", "clicks per answer"):
        table.add_column(column, justify="right")
    for arm, rate in verdict.ctr.items():
        counts = (f"{found[arm]:,}" for found in (verdict.queries, verdict.impressions, verdict.clicks))
        table.add_row(arm, *counts, _estimate(rate, "{:.4f}"))
    lift, preference = _estimate(verdict.lift, "{:+.1%}"), _estimate(verdict.preference, "{:.1%}")
    if not math.isnan(verdict.lift.value):
        table.add_row("treatment against control", "", "", "", lift)
    if not math.isnan(verdict.preference.value):
        table.add_row("treatment's share of clicks", "", "", "", preference)
    return table


def _estimate(estimate: "Estimate", form: str) -> str:
    if math.isnan(estimate.value):
        return "–"
    return f"{form.format(estimate.value)} [{form.format(estimate.low)}, {form.format(estimate.high)}]"


def _plain(value: Any) -> Any:
    """JSON has no NaN."""
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value
