"""Tables of the documents, from the results in ``docs/evidence``: ``python -m docs.tables`` writes them.

A document has ``<!-- table: NAME -->`` and ``<!-- end -->`` around a table, and a function here makes it. The results
are what ``--json FILE`` writes: they name command, commit, date, cores and processor.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
EVIDENCE = ROOT / "docs" / "evidence"
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
_MARKED = re.compile(r"(<!-- table: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def main() -> None:
    """Write every table anew."""
    for document in DOCUMENTS:
        text = document.read_text()
        if (fresh := rendered(text)) != text:
            document.write_text(fresh)
            print(f"{document.relative_to(ROOT)} has new tables")


def rendered(text: str) -> str:
    """A document's text with its tables as the evidence has them.

    Raises:
        KeyError: a table that nobody makes. FileNotFoundError: its evidence is missing.
    """
    return _MARKED.sub(lambda marked: f"{marked[1]}\n{TABLES[marked[2]]()}\n{marked[3]}", text)


def comparison() -> str:
    """Hit rates of models on the logs that ``evidence/compare-*.json`` (``dat evaluate``) report on."""
    reports = {file.stem.removeprefix("compare-"): _load(file) for file in sorted(EVIDENCE.glob("compare-*.json"))}
    names = list(dict.fromkeys(name for report in reports.values() for name in report["results"]))
    names.sort(key="dat".__ne__)
    heads = [f"{report['dataset']}, {report['protocol']}" for report in reports.values()]
    best = {log: max(r["hr100"] for r in report["results"].values()) for log, report in reports.items()}
    rows = []
    for name in names:
        results = [report["results"].get(name) for report in reports.values()]
        seeds = sorted({len(result["runs"]) for result in results if result})
        cells = [_rates(result, best[log]) for log, result in zip(reports, results, strict=True)]
        rows.append([name, "–".join(map(str, seeds)), *cells])
    return _table(["HR@50 / HR@100 / MRR×10", "seeds", *heads], rows, reports.values())


def demo() -> str:
    """The demo's day (``evidence/demo.json``, ``dat demo``)."""
    report = _load(EVIDENCE / "demo.json")
    rows = {"the night's vectors, all day": report["static"], "after every click": report["live"]}
    cells = [[name, *(f"{rates[key]:.3f}" for key in ("hr50", "hr100", "mrr10"))] for name, rates in rows.items()]
    head = f"the next click of {report['clicks_sent']:,}, from the whole corpus"
    return _table([head, "HR@50", "HR@100", "MRR×10"], cells, [report])


def night() -> str:
    """What nights reported of their bundles (``evidence/night-LOG.json``, ``dat nightly``), beside ``dat evaluate`` of
    the same commit, settings and seed (``night-LOG-evaluate.json``)."""
    rows, reports = [], []
    for file in sorted(EVIDENCE.glob("night-*-evaluate.json")):
        measured, shipped = _load(file), _load(file.with_name(file.name.replace("-evaluate", "")))
        run = measured["results"]["dat"]["runs"][0]
        for kind in ("live", "static"):
            if f"{kind}_hr50" not in shipped["metrics"]:
                continue  # a last-out test is of one moment
            of = run if kind == "live" or "static" not in run else run["static"]
            names = ("hr50", "hr100", "mrr10")
            for command, found in (
                ("`dat nightly`", [shipped["metrics"][f"{kind}_{name}"] for name in names]),
                ("`dat evaluate`", [of[name] for name in names]),
            ):
                log = f"{measured['dataset']}, {measured['protocol']}"
                rows.append([log, kind, command, *(f"{rate:.6f}" for rate in found)])
        reports += [shipped, measured]
    return _table(["log, protocol", "", "", "HR@50", "HR@100", "MRR×10"], rows, reports)


SPEED = (
    ("updater", "the updater, both stages, exactly once", "{clicks_per_s:,} clicks a second",
     "Quix Streams, moving averages alone: {quixstreams_per_s:,}"),
    ("freshness", "from a click to an answer that reflects it, at {rate:,} clicks a second",
     "{fresh_p50_ms:.0f} ms (p50), {fresh_p99_ms:.0f} ms (p99)", ""),
    ("retrieval", "an answer over HTTP from {items:,} items, at {rate:g} requests a second",
     "{p50_ms:.1f} ms (p50), {p99_ms:.1f} ms (p99); at most {requests_per_s:.0f} a second",
     "Redis, tower and search alone: {floor_p50_ms:.1f} ms (p50)"),
    ("trainingset", "building a training set of {clicks_to:,} clicks",
     "{night_rows_per_s:,} clicks a second; {night_mib:,} MiB",
     "{night_growth:g} × the memory of {clicks_from:,} clicks of the same ids"),
)  # fmt: skip
"""Of ``evidence/bench-NAME.json``: what, its figure, and what stands beside it in the same run."""


def speed() -> str:
    """Figures of ``dat bench``, those that ``evidence/bench-*.json`` hold."""
    reports = {name: _load(file) for name, *_ in SPEED if (file := EVIDENCE / f"bench-{name}.json").is_file()}
    rows = [[text.format(**reports[name]) for text in texts] for name, *texts in SPEED if name in reports]
    return _table(["what", "figure", "beside it"], rows, reports.values())


def lanes() -> str:
    """How long the lanes of ``.ci/run`` take (``evidence/lanes.json``)."""
    report = _load(EVIDENCE / "lanes.json")
    rows = [[f"`{lane['command']}`", lane["what"], f"{lane['seconds'] / 60:.1f}"] for lane in report["lanes"]]
    return _table(["command", "what it proves", "minutes"], rows, [report])


def ablation() -> str:
    """DAT with one part changed (``evidence/ablation.json``, ``dat experiment ablation``)."""
    report = _load(EVIDENCE / "ablation.json")
    base = report["results"]["DAT"]
    rows = []
    for name, row in report["results"].items():
        cells = [f"{row[key]:.3f}" for key in ("hr50", "hr100", "mrr10")]
        rows.append(
            [name, str(row["seeds"]), *cells, f"{row['hr100'] / base['hr100'] - 1:+.1%}" if row is not base else ""]
        )
    return _table(["", "seeds", "HR@50", "HR@100", "MRR×10", "HR@100 against DAT"], rows, [report])


def small() -> str:
    """DAT and rivals on a log's newest clicks (``evidence/small-N.json`` and ``small-N-without.json``)."""
    sizes = sorted(int(file.stem.split("-")[1]) for file in EVIDENCE.glob("small-*-without.json"))
    pairs = {size: [_load(EVIDENCE / f"small-{size}{end}.json") for end in ("", "-without")] for size in sizes}
    rows: dict[str, list[str]] = {}
    for asked, without in pairs.values():
        results = dict(asked["results"]) | {"dat, weight 0": without["results"]["dat"]}
        best = max(result["hr100"] for result in results.values())
        for name, result in sorted(results.items(), key=lambda named: -named[1]["hr100"]):
            rows.setdefault(name, []).append(_rates(result, best))
        found = asked["results"]["dat"]["runs"]
        rows.setdefault("weights that were chosen", []).append(
            ", ".join(f"{r['closed_form']['weight']:g}" for r in found)
        )
    last = rows.pop("weights that were chosen")
    cells = [[name, *of] for name, of in rows.items()] + [["weights that were chosen, by seed", *last]]
    head = ["HR@50 / HR@100 / MRR×10", *(f"the newest {size:,} clicks" for size in sizes)]
    return _table(head, cells, [report for both in pairs.values() for report in both])


TABLES: dict[str, Callable[[], str]] = {
    "comparison": comparison,
    "demo": demo,
    "night": night,
    "speed": speed,
    "lanes": lanes,
    "ablation": ablation,
    "small": small,
}


def _load(file: Path) -> dict[str, Any]:
    report = json.loads(file.read_text())
    missing = {"command", "commit", "date", "cores", "cpu"} - set(report.get("provenance", {}))
    if missing:
        raise ValueError(f"{file.name} does not say its {', '.join(sorted(missing))}: write it with --json")
    return report


def _rates(result: dict[str, Any] | None, best: float) -> str:
    if result is None:
        return "–"
    text = " / ".join(f"{result[key]:.3f}" for key in ("hr50", "hr100", "mrr10"))
    return f"**{text}**" if result["hr100"] == best else text


def _table(head: list[str], rows: list[list[str]], reports: Any) -> str:
    lines = [head, ["---"] * len(head), *rows]
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    return f"{table}\n\n{_sources([report['provenance'] for report in reports])}"


def _sources(made: list[dict[str, Any]]) -> str:
    """The commands, a line each, and the machine behind the last that ran on it."""
    lines: dict[str, str] = {}
    for one in made:
        command = re.sub(r" --(json|out) \S+", "", one["command"])  # where it was written to says nothing
        lines[f"`{command}` at {one['commit'][:8]}, {one['date']}"] = f"{one['cores']} cores of {one['cpu']}"
    machines = list(lines.values())
    told = [line + (f"; {m}" if m not in machines[k + 1 :] else "") for k, (line, m) in enumerate(lines.items())]
    return "\n".join(f"<small>{line}</small>  " for line in told) + "\n"


if __name__ == "__main__":
    main()
