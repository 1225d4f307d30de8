"""Grafana's dashboards as code: ``python -m deploy.dashboards`` writes them into the chart, and a test compares.

Three of them: Service, Stream, Night. Every metric that they name exists, which a test holds, too.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "helm" / "dat" / "files" / "dashboards"
_SOURCE = {"type": "prometheus", "uid": "${source}"}
_WIDTH, _HEIGHT, _COLUMNS = 8, 8, 3


@dataclass(frozen=True)
class Panel:
    """A panel: its title, its queries by legend, and the unit of its axis in Grafana's words."""

    title: str
    queries: dict[str, str]
    unit: str = "short"
    kind: str = "timeseries"
    text: str = ""


def _quantiles(metric: str, by: str = "", where: str = "") -> dict[str, str]:
    of = f"sum by (le{', ' + by if by else ''}) (rate({metric}_bucket{where}[5m]))"
    legend = f"{{{{{by}}}}} " if by else ""
    return {f"{legend}p{q * 100:g}": f"histogram_quantile({q}, {of})" for q in (0.5, 0.99)}


SERVICE = (
    Panel("Requests by code", {"{{code}}": "sum by (code) (rate(dat_http_requests_total[5m]))"}, "reqps"),
    Panel("Time of an answer", _quantiles("dat_http_request_duration_seconds", where='{route="/v1/retrieve"}'), "s"),
    Panel(
        "Answers by source and fallback",
        {"{{source}} {{fallback}}": "sum by (source, fallback) (rate(dat_answers_total[5m]))"},
        "reqps",
        text="stream: with all clicks · bundle: as of the night · store-down: without the online store",
    ),
    Panel("Waiting", {"for their turn": "sum(dat_answers_pending)", "for a click": "sum(dat_answers_held)"}),
    Panel("Reading the online store", _quantiles("dat_store_read_seconds"), "s"),
    Panel("Failed reads", {"a second": "sum(rate(dat_store_errors_total[5m]))"}, "reqps"),
    Panel("Wrong keys", {"{{result}}": "sum by (result) (rate(dat_wrong_keys_total[5m]))"}, "reqps"),
    Panel("Clicks posted", {"{{result}}": "sum by (result) (rate(dat_clicks_posted_total[5m]))"}, "reqps"),
    Panel("Impressions", {"{{result}}": "sum by (result) (rate(dat_impressions_total[5m]))"}, "reqps"),
    Panel("Oldest click that does not show", {"{{instance}}": "dat_staleness_seconds"}, "s"),
    Panel("From a click's arrival to the index", _quantiles("dat_searchable_seconds"), "s"),
    Panel("Records that the index has yet to read", {"{{instance}}": "dat_index_lag_records"}),
    Panel("Memory", {"{{instance}}": 'process_resident_memory_bytes{job=~"dat-serve.*"}'}, "bytes"),
    Panel(
        "Trouble",
        {
            "thread {{thread}}": "sum by (thread) (rate(dat_thread_failures_total[5m]))",
            "set aside, {{topic}}": "sum by (topic) (rate(dat_records_set_aside_total[5m]))",
        },
    ),
)
STREAM = (
    Panel("Clicks folded a second", {"{{stage}}": "sum by (stage) (rate(dat_clicks_total[5m]))"}, "cps"),
    Panel("Records that wait", {"{{stage}} {{partition}}": "max by (stage, partition) (dat_stage_lag_records)"}),
    Panel(
        "Since the last commit",
        {"{{stage}}": "time() - max by (stage) (dat_stage_last_commit_timestamp_seconds)"},
        "s",
    ),
    Panel("From a click's arrival to its commit", _quantiles("dat_freshness_seconds", "stage"), "s"),
    Panel("Computing a batch", _quantiles("dat_batch_seconds", "stage"), "s"),
    Panel("Committing it", _quantiles("dat_commit_seconds", "stage"), "s"),
    Panel(
        "Left out",
        {
            "repeats": "sum(rate(dat_clicks_repeated_total[5m]))",
            "no clicks by the card": "sum(rate(dat_events_uncounted_total[5m]))",
        },
        "cps",
    ),
    Panel("Dead letters", {"{{reason}}": "sum by (reason) (rate(dat_clicks_rejected_total[5m]))"}, "cps"),
    Panel(
        "Errors",
        {
            "{{stage}} {{error}}": "sum by (stage, error) (rate(dat_errors_total[5m]))",
            "{{stage}} transactions": "sum by (stage) (rate(dat_transactions_failed_total[5m]))",
        },
    ),
    Panel("Rows written online", {"a second": "sum(rate(dat_online_rows_total[5m]))"}, "wps"),
    Panel(
        "The online store",
        {
            "writes refused": "sum(rate(dat_online_writes_failed_total[5m]))",
            "has its rows": "min(dat_online_store_marker_ok)",
        },
    ),
    Panel("Since the last write", {"{{instance}}": "time() - dat_online_last_write_timestamp_seconds"}, "s"),
    Panel(
        "Newest click that is folded: age",
        {"{{stage}}": "time() - max by (stage) (dat_last_folded_click_timestamp_seconds)"},
        "s",
    ),
    Panel("Restoring state", _quantiles("dat_restore_seconds", "stage"), "s"),
    Panel("Changelog records lost", {"lost": "max(dat_changelog_lost_records)"}),
)
NIGHT = (
    Panel("Since a night published", {"": "time() - max(dat_night_last_success_timestamp_seconds)"}, "s", "stat"),
    Panel("The last night", {"{{verdict}}": "max by (verdict) (dat_night_verdict) == 1"}, kind="stat"),
    Panel("Training clicks", {"": "max(dat_night_training_clicks)"}, kind="stat"),
    Panel("Seconds by stage", {"{{stage}}": "max by (stage) (dat_night_stage_seconds)"}, "s", "bargauge"),
    Panel(
        "HR@100",
        {"{{mode}}": "max by (mode) (dat_night_hr100)", "served": "max(dat_served_hr100)"},
        "percentunit",
        text="static: the night's vectors · live: each click is folded before the next · served: answers given",
    ),
    Panel("Age of the bundle that answers", {"{{instance}}": "time() - dat_bundle_cut_timestamp_seconds"}, "s"),
    Panel(
        "Bundle by process",
        {
            "{{instance}} serves {{version}}": "dat_bundle_served == 1",
            "{{instance}} updates {{version}}": "dat_bundle == 1",
        },
    ),
    Panel("Bundles refused", {"": "sum(increase(dat_bundles_refused_total[1h]))"}),
    Panel("Bundles can be taken", {"{{instance}}": "dat_bundles_ok"}, text="0: the object store is away or damaged"),
    Panel("Versions that run", {"{{version}}": "count by (version) (dat_build_info)"}),
)
DASHBOARDS = {
    "service": ("DAT: service", SERVICE),
    "stream": ("DAT: stream", STREAM),
    "night": ("DAT: night and model", NIGHT),
}


def dashboard(name: str) -> dict[str, Any]:
    """A dashboard as Grafana imports it."""
    title, panels = DASHBOARDS[name]
    source = {"name": "source", "label": "Prometheus", "type": "datasource", "query": "prometheus"}
    return {
        "uid": f"dat-{name}",
        "title": title,
        "tags": ["dat"],
        "schemaVersion": 39,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": [source]},
        "panels": [_panel(number, panel) for number, panel in enumerate(panels)],
    }


def _panel(number: int, panel: Panel) -> dict[str, Any]:
    row, column = divmod(number, _COLUMNS)
    return {
        "id": number + 1,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.text,
        "datasource": _SOURCE,
        "gridPos": {"x": column * _WIDTH, "y": row * _HEIGHT, "w": _WIDTH, "h": _HEIGHT},
        "fieldConfig": {"defaults": {"unit": panel.unit}, "overrides": []},
        "targets": [
            {"refId": chr(ord("A") + at), "expr": expression, "legendFormat": legend, "datasource": _SOURCE}
            for at, (legend, expression) in enumerate(panel.queries.items())
        ],
    }


def text(name: str) -> str:
    return json.dumps(dashboard(name), indent=2) + "\n"


if __name__ == "__main__":
    for name in DASHBOARDS:
        (FOLDER / f"{name}.json").write_text(text(name))
