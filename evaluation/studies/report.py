"""The experiments' results as one self-contained page: plots, tables, and the paper's figures beside them."""

from html import escape
from typing import Any

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from evaluation.studies import paper

OURS, THEIRS, THIRD, FAINT = "#0b6e4f", "#d1495b", "#3d5a80", "#b8c0cc"
METRICS = {"hr50": "HR@50", "hr100": "HR@100", "mrr10": "MRR×10"}
STYLE = """
body{font:16px/1.55 Georgia,serif;color:#1d2733;background:#fbfaf7;max-width:1020px;margin:2.5rem auto;padding:0 1.2rem}
h1{font-size:2rem;line-height:1.2;margin:.2rem 0 .4rem}h2{font-size:1.25rem;margin:2.4rem 0 .4rem}
.lead{font-size:1.12rem}.note,.about{color:#5c6773;font-size:.9rem}
table{border-collapse:collapse;width:100%;font:14px/1.4 system-ui,sans-serif;font-variant-numeric:tabular-nums}
th,td{padding:.34rem .6rem;text-align:right;border-bottom:1px solid #e4e1d8;white-space:nowrap}
th:first-child,td:first-child{text-align:left}
table.words td{text-align:left;white-space:normal}th{color:#5c6773;font-weight:600}
tr.ours td{background:#e9f4ee}.best{font-weight:700;color:#0b6e4f}.pm{color:#8a939d;font-size:.85em}
.scroll{overflow-x:auto}
"""


def page(result: dict[str, Any]) -> str:
    """The whole HTML page of one experiment's result; it loads nothing from anywhere."""
    title, lead, parts = {"table2": _table2, "ablation": _ablation, "online": _online}[result["experiment"]](result)
    about = _about(result) if "dataset" in result else _about_online(result)
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title><style>{STYLE}</style>'
        f'<script>{get_plotlyjs()}</script><p class="about">DAT · {escape(result["experiment"])}</p>'
        f'<h1>{escape(title)}</h1><p class="lead">{lead}</p><p class="about">{about}</p>{"".join(parts)}</html>'
    )


def _about(result: dict[str, Any]) -> str:
    return (
        f"{escape(result['title'])}, protocol <i>{result['protocol']}</i>: {result['clicks']:,} clicks, "
        f"{result['test_clicks']:,} of them asked over the whole corpus; {result['seeds']} seeds."
    )


def _about_online(result: dict[str, Any]) -> str:
    config = result["config"]
    return (
        f"{config['users']:,} simulated people, {config['items']:,} items, {config['days']} days, trained every night "
        f"on the {config['window']} days before; {config['candidates']} candidates to one common ranker, "
        f"{config['slots']} shown; {' and '.join(f'{n:,}' for n in result['impressions'])} impressions."
    )


def _figure(figure: go.Figure, height: int = 420) -> str:
    figure.update_layout(
        template="plotly_white", height=height, margin={"l": 60, "r": 20, "t": 30, "b": 50},
        paper_bgcolor="rgba(0,0,0,0)", plot_bgcolor="rgba(0,0,0,0)", font={"family": "system-ui, sans-serif"},
        legend={"orientation": "h", "y": 1.12},
    )  # fmt: skip
    return figure.to_html(full_html=False, include_plotlyjs=False, config={"displayModeBar": False, "responsive": True})


def _table(head: list[str], rows: list[list[str]], ours: str | None = None, kind: str = "numbers") -> str:
    cells = "".join(f"<th>{name}</th>" for name in head)
    body = "".join(
        f"<tr{' class=ours' if row[0] == ours else ''}>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>"
        for row in rows
    )
    return (
        f'<div class="scroll"><table class="{kind}"><thead><tr>{cells}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def _value(row: dict, key: str, best: float | None = None) -> str:
    spread = f' <span class="pm">±{row["std"][key]:.3f}</span>' if row["seeds"] > 1 else ""
    text = f"{row[key]:.3f}"
    return (f'<span class="best">{text}</span>' if best is not None and row[key] >= best else text) + spread


def _p(value: float | None) -> str:
    if value is None:
        return "–"
    return "&lt; 0.001" if value < 0.001 else f"{value:.3f}"


def _p_row(row: dict) -> list[str]:
    over_seeds = row["p_seeds"] or {}
    return [_p(over_seeds.get("hr100")), _p(over_seeds.get("mrr10")), _p(row["p_clicks"])]


P_NOTE = (
    '<p class="note">± is the sample standard deviation over seeds. p: paired t-tests against <b>{baseline}</b>, over '
    "seeds (HR@100, MRR) and over test clicks (HR@100, hits averaged over seeds); not corrected for their number.</p>"
)


def _table2(result: dict[str, Any]) -> tuple[str, str, list[str]]:
    rows, ours = result["results"], result["baseline"]
    order = sorted(rows, key=lambda name: -rows[name]["hr100"])
    own = [name for name in rows if name.startswith("dat")]
    rivals = [name for name in order if name not in own]
    lead = f"{escape(ours)} reaches HR@100 {rows[ours]['hr100']:.3f}"
    if rivals:
        best = rivals[0]
        margin = rows[ours]["hr100"] / max(rows[best]["hr100"], 1e-9) - 1
        lead += (
            f", {abs(margin):.1%} {'above' if margin >= 0 else 'below'} its best rival, {escape(best)} "
            f"(p over test clicks: {_p(rows[best]['p_clicks'])})"
        )
    lead += ". In the paper the margin is " + " and ".join(f"{m:.2%} on {n}" for n, m in paper.MARGINS.items()) + "."
    bars = go.Figure()
    for (key, name), colour in zip(METRICS.items(), (FAINT, OURS, THIRD), strict=True):
        bars.add_bar(
            x=order, y=[rows[m][key] for m in order], name=name, marker_color=colour,
            error_y={"array": [rows[m]["std"][key] for m in order], "thickness": 1},
        )  # fmt: skip
    bars.update_layout(barmode="group")
    best = {key: max(row[key] for row in rows.values()) for key in METRICS}
    main = [
        [name, *(_value(rows[name], key, best[key]) for key in METRICS), *_p_row(rows[name]),
         f"{len(rows[name]['trials']) or '–'}", f"{rows[name]['seconds']:.0f}",
         f"{rows[name]['collapsed']} of {rows[name]['seeds']}" if rows[name]["collapsed"] else ""]
        for name in order
    ]  # fmt: skip
    head = ["model", *METRICS.values(), "p HR@100", "p MRR", "p clicks", "trials", "s a run", "collapsed"]
    shared = [name for name in paper.TABLE2["Meituan"] if name in rows]
    beside = go.Figure()
    series = {f"{name} (paper)": {m: values[m][1] for m in shared} for name, values in paper.TABLE2.items()}
    series[f"{result['title']} (here)"] = {m: rows[m]["hr100"] for m in shared}
    for (name, values), colour in zip(series.items(), (FAINT, THIRD, OURS), strict=True):
        base = values.get("two-tower") or max(values.values(), default=1) or 1
        beside.add_bar(x=shared, y=[values[m] / base for m in shared], name=name, marker_color=colour)
    beside.update_layout(barmode="group", yaxis_title="HR@100 as a multiple of the two-tower's")
    printed = [
        [name, *(f"{value:.4f}" for values in paper.TABLE2.values() for value in values[name])]
        for name in paper.TABLE2["Meituan"]
    ]
    columns = [f"{name.split()[0]} {metric}" for name in paper.TABLE2 for metric in METRICS.values()]
    settings = [[name, escape(_settings(rows[name]["settings"]))] for name in order]
    tuned = go.Figure()
    for name in order:
        values = rows[name]["trials"]
        if values:
            reached = [max(values[: k + 1]) for k in range(len(values))]
            tuned.add_scatter(x=list(range(1, len(values) + 1)), y=reached, name=name, mode="lines+markers")
    tuned.update_layout(
        xaxis_title="trial", yaxis_title="best on the validation cut (geometric mean)", xaxis={"dtick": 1}
    )
    parts = [
        "<h2>Every model, tuned alike</h2>", _figure(bars), _table(head, main, ours),
        P_NOTE.format(baseline=escape(ours)),
        "<h2>Beside the paper</h2>", _figure(beside) if shared else "",
        _table(["paper, table 2", *columns], printed, "dat"),
        "<h2>Where the hits come from</h2>", _parts(rows, order),
        "<h2>Tuning</h2>", _figure(tuned) if tuned.data else "",
        _table(["model", "best settings"], settings, kind="words"),
    ]  # fmt: skip
    return f"{result['title']}: DAT among its rivals", lead, parts


def _settings(settings: dict) -> str:
    shown = (f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in settings.items())
    return ", ".join(shown) or "nothing to tune"


def _parts(rows: dict[str, dict], order: list[str]) -> str:
    """HR@100 of parts of the clicks, as a map of models and parts."""
    names = [part for part in rows[order[0]]["parts"] if all(part in rows[m]["parts"] for m in order)]
    labels = [f"{part} ({rows[order[0]]['parts'][part]['clicks']:,.0f})" for part in names]
    values = [[rows[m]["parts"][part]["hr100"] for part in names] for m in order]
    heat = go.Figure(
        go.Heatmap(z=values, x=labels, y=order, showscale=False, colorscale="Greens", zmin=0, texttemplate="%{z:.2f}")
    )
    heat.update_yaxes(autorange="reversed")
    return _figure(heat, 120 + 34 * len(order))


def _ablation(result: dict[str, Any]) -> tuple[str, str, list[str]]:
    rows, base = result["results"], result["results"]["DAT"]
    others = [label for label in rows if label != "DAT"]
    figure = go.Figure()
    for key, colour in (("hr100", OURS), ("mrr10", THIRD)):
        figure.add_bar(
            y=others, x=[rows[m][key] / max(base[key], 1e-9) - 1 for m in others], name=METRICS[key], orientation="h",
            marker_color=colour, error_x={"array": [rows[m]["std"][key] / max(base[key], 1e-9) for m in others]},
        )  # fmt: skip
    figure.update_layout(xaxis={"title": "change against DAT's defaults", "tickformat": "+.0%"}, barmode="group")
    figure.update_yaxes(autorange="reversed", automargin=True)
    worst = min(others, key=lambda label: rows[label]["hr100"]) if others else None
    lead = "Each setting changed alone."
    if worst:
        change = rows[worst]["hr100"] / max(base["hr100"], 1e-9) - 1
        lead += f" What costs most is “{escape(worst)}”: HR@100 {change:+.1%}."
    tail = "tail categories"
    table = [
        [label, *(_value(row, key) for key in METRICS), *_p_row(row),
         f"{row['parts'][tail]['hr100']:.3f}" if tail in row["parts"] else "–",
         f"{row['collapsed']} of {row['seeds']}" if row["collapsed"] else ""]
        for label, row in rows.items()
    ]  # fmt: skip
    head = ["variant", *METRICS.values(), "p HR@100", "p MRR", "p clicks", "HR@100 tail", "collapsed"]
    note = P_NOTE.format(baseline="DAT") + (
        '<p class="note">Tail: test clicks on the categories that hold the last tenth of the training clicks. '
        "Collapsed: the trainer's own watch found item vectors alike or units dead.</p>"
    )
    parts = [_figure(figure, 160 + 44 * len(others)), _table(head, table, "DAT"), note]
    parts += ["<h2>By part of the clicks</h2>", _parts(rows, list(rows))]
    return f"{result['title']}: what each part of DAT is worth", lead, parts


def _online(result: dict[str, Any]) -> tuple[str, str, list[str]]:
    control, treatment = result["config"]["arms"]
    gain, parts = result["gain"], []
    days = [f"day {k + 1}" for k in range(result["config"]["days"])]
    lead = f"{escape(treatment)} against {escape(control)} over {len(days)} days: " + ", ".join(
        f"{metric.upper()} {values['value'][-1]:+.2%} (95 % interval {values['low'][-1]:+.2%} to "
        f"{values['high'][-1]:+.2%})" for metric, values in gain.items()
    )  # fmt: skip
    lead += f". In the paper, online: CTR {paper.FIGURE3['ctr']:+.2%}, GMV {paper.FIGURE3['gmv']:+.2%}."
    for metric, label in (("ctr", "CTR"), ("gmv", "GMV a person")):
        figure = go.Figure()
        for name, colour in ((control, THEIRS), (treatment, OURS)):
            found = {key: values[:-1] for key, values in result["arms"][name][metric].items()}
            figure.add_scatter(
                x=days, y=found["value"], name=name, mode="lines+markers", line_color=colour,
                error_y={"type": "data", "symmetric": False,
                         "array": [h - v for h, v in zip(found["high"], found["value"], strict=True)],
                         "arrayminus": [v - w for w, v in zip(found["low"], found["value"], strict=True)]},
            )  # fmt: skip
        figure.update_layout(yaxis_title=label)
        parts += [f"<h2>{label}</h2>", _figure(figure, 360)]
        rows = [
            [day, *(f"{result['arms'][arm][metric]['value'][k]:.4g}" for arm in (control, treatment)),
             f"{gain[metric]['value'][k]:+.2%}", f"{gain[metric]['low'][k]:+.2%} … {gain[metric]['high'][k]:+.2%}"]
            for k, day in enumerate([*days, "all days"])
        ]  # fmt: skip
        parts.append(_table(["", control, treatment, "gain", "95 % interval"], rows, "all days"))
    law = (
        '<p class="note">People click by a law that is written down in <code>evaluation/studies/market.py</code>: '
        "tastes over topics, moods that last a few visits, newness, quality; what they buy depends on the price too. "
        "Both arms see every click of everyone, keep their activity features live, and are trained anew every night; "
        "they differ in the retrieval model alone. Intervals: bootstrap over people. The paper draws its days and "
        "prints the averages only.</p>"
    )
    return "Seven days, two retrieval models, one ranker", lead, [*parts, law]
