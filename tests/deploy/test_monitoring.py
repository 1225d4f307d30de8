"""Alerts and dashboards speak of metrics and pages that exist, and each rule fires when it should."""

import re
import shutil
from pathlib import Path

import pytest
import typer.main
import yaml
from prometheus_client import REGISTRY as DAY

from cli.main import build
from deploy import dashboards
from model.settings.settings import Settings
from serving.metrics import REGISTRY as ANSWER
from spark_jobs.night_metrics import NightMetrics
from streaming import metrics as _day  # noqa: F401 — fills the default registry
from tests.deploy.tools import CHART, ROOT, run

RULES = CHART / "files" / "rules.yaml"
ALERTS = [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
METRIC = re.compile(r"\b(?:dat|process)_[a-z0-9_]+")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Every name that a scrape may show."""
    (tmp_path_factory.mktemp("home") / "served").mkdir()
    home = tmp_path_factory.mktemp("home")
    (home / "served").mkdir()
    (home / "served" / "2026-01-01.json").write_text('{"hr100": 0.5}')
    names = set()
    for registry in (DAY, ANSWER, NightMetrics(home, []).registry):
        for family in registry.collect():
            endings = {"counter": ["_total"], "histogram": ["_bucket", "_count", "_sum"]}.get(family.type, [""])
            names |= {family.name + ending for ending in endings}
    return names


def test_every_metric_of_the_rules_exists(exported: set[str]):
    named = {name for rule in ALERTS for name in METRIC.findall(rule["expr"])}
    assert len(ALERTS) == 14 and named <= exported, named - exported


@pytest.mark.parametrize("name", dashboards.DASHBOARDS)
def test_every_metric_of_a_dashboard_exists_and_the_file_is_what_the_code_makes(name: str, exported: set[str]):
    panels = dashboards.dashboard(name)["panels"]
    named = {found for panel in panels for target in panel["targets"] for found in METRIC.findall(target["expr"])}
    assert named and named <= exported, named - exported
    assert (dashboards.FOLDER / f"{name}.json").read_text() == dashboards.text(name), "python -m deploy.dashboards"


def test_each_metric_of_ours_is_on_a_dashboard(exported: set[str]):
    """What nobody can see need not be counted."""
    shown = "".join(dashboards.text(name) for name in dashboards.DASHBOARDS)
    ours = {re.sub("_(bucket|count|sum)$", "", name) for name in exported if name.startswith("dat_")}
    assert {name for name in ours if name not in shown} == set()


def test_each_alert_leads_to_its_part_of_the_runbook():
    heads = re.findall(r"^### (\w+)$", (ROOT / "docs" / "runbook.md").read_text(), re.M)
    for rule in ALERTS:
        assert rule["annotations"]["runbook_url"] == f"RUNBOOK#{rule['alert'].lower()}"
        assert rule["alert"] in heads and rule["annotations"]["summary"]
        assert rule["labels"]["severity"] in ("page", "ticket")
    assert [head for head in heads if head in {rule["alert"] for rule in ALERTS}] == [rule["alert"] for rule in ALERTS]


def test_commands_and_settings_of_the_runbook_are_those_that_there_are():
    text, verbs = (ROOT / "docs" / "runbook.md").read_text(), typer.main.get_command(build()).commands
    commands = [found.split() for found in re.findall(r"(?:`|-- |^)dat\s([a-z][^`#\n]*)", text, re.M)]
    assert len(commands) >= 15
    for verb, *words in commands:
        command = verbs[verb]
        if words:  # not a mere mention
            command.make_context(verb, words)
    for part, name in re.findall(r"`(serving|updater|night)\.([a-z_]+)\*?`", text):
        fields = Settings.model_fields[part].annotation.model_fields
        assert any(field.startswith(name) for field in fields), f"{part}.{name}"


def test_promtool_takes_the_rules_and_each_fires_when_it_should(tmp_path: Path):
    shutil.copy(RULES, tmp_path)
    shutil.copy(ROOT / "deploy" / "prometheus" / "rules_test.yaml", tmp_path)
    done = run("promtool", "check", "rules", "rules.yaml", cwd=tmp_path)
    assert done.returncode == 0 and "14 rules found" in done.stdout, done.stderr
    done = run("promtool", "test", "rules", "rules_test.yaml", cwd=tmp_path)
    assert done.returncode == 0, done.stderr + done.stdout
    fired = (tmp_path / "rules_test.yaml").read_text()
    assert all(f"RUNBOOK#{rule['alert'].lower()}" in fired for rule in ALERTS)
