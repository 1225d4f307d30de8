"""The chart renders what Kubernetes takes, and says what the command understands."""

import json
import tomllib
from pathlib import Path

import pytest
import typer.main
import yaml

from cli.main import build
from deploy import schema
from model.settings.settings import Settings, load_settings
from tests.deploy.tools import CHART, ROOT, VALUES, run

CUSTOM = json.loads((ROOT / "deploy" / "helm" / "custom-resources.schema.json").read_text())


@pytest.fixture(params=VALUES, ids=lambda path: path.stem)
def values(request: pytest.FixtureRequest) -> Path:
    return request.param


@pytest.fixture
def rendered(values: Path) -> list[dict]:
    done = run("helm", "template", "shop", CHART, "--values", values)
    assert done.returncode == 0, done.stderr
    return [found for found in yaml.safe_load_all(done.stdout) if found]


def pods(rendered: list[dict]) -> dict[str, dict]:
    """Name of the object → its pod."""
    found = {}
    for one in rendered:
        spec = one.get("spec", {})
        spec = spec.get("jobTemplate", {}).get("spec", spec)
        if "template" in spec:
            found[one["metadata"]["name"]] = spec["template"]["spec"]
    return found


def test_helm_finds_nothing_to_say_against_it(values: Path):
    done = run("helm", "lint", "--strict", CHART, "--values", values)
    assert done.returncode == 0, done.stdout


def test_kubernetes_takes_every_object(rendered: list[dict]):
    validate = pytest.importorskip("kubernetes_validate")
    jsonschema = pytest.importorskip("jsonschema")
    for one in rendered:
        if one["apiVersion"].startswith("monitoring.coreos.com/"):
            jsonschema.validate(one, CUSTOM)
        else:
            validate.validate(one, validate.latest_version(), strict=True)


def test_pods_run_as_nobody_in_particular_on_a_root_that_they_cannot_write(rendered: list[dict]):
    assert len(pods(rendered)) >= 3
    for pod in pods(rendered).values():
        assert pod["securityContext"]["runAsUser"] == 10001 and pod["securityContext"]["runAsNonRoot"]
        assert not pod["automountServiceAccountToken"]
        for container in pod["containers"]:
            context = container["securityContext"]
            assert context["readOnlyRootFilesystem"] and context["capabilities"]["drop"] == ["ALL"]
            assert container["resources"]["limits"]["memory"]


def test_commands_and_settings_are_those_that_there_are(
    rendered: list[dict], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    verbs = typer.main.get_command(build()).commands
    (config,) = [one for one in rendered if one["kind"] == "ConfigMap" and "dat.toml" in one["data"]]
    (tmp_path / "dat.toml").write_text(config["data"]["dat.toml"])
    if card := config["data"].get("card.toml"):
        assert tomllib.loads(card)["clicks"]
    monkeypatch.chdir(tmp_path)
    for name, pod in pods(rendered).items():
        (container,) = pod["containers"]
        verb, *options = container["args"]
        verbs[verb].make_context(verb, list(options))
        with monkeypatch.context() as env:
            for variable in container["env"]:
                if variable["name"] != "DAT_SECRETS_DIR":
                    env.setenv(variable["name"], variable.get("value", "shop-dat-updater-query-0"))
            settings = load_settings()
        assert settings.home == Path("/data") or settings.home_url == "s3://shop-dat/home"
        assert settings.redis and "kafka" in settings.updater.bootstrap
        if "updater" in name:
            assert (settings.updater.metrics_host, settings.updater.metrics_port) == ("0.0.0.0", 9100)
            assert settings.updater.instance == "shop-dat-updater-query-0"


def test_only_the_night_has_a_volume_where_bundles_are_in_an_object_store(rendered: list[dict], values: Path):
    given = yaml.safe_load(values.read_text())
    home, night = given.get("home", {}).get("url"), given.get("nightly", {}).get("enabled", True)
    url = f"{home}/bundles" if home else given.get("bundles", {}).get("url")
    claims = [one["spec"]["accessModes"] for one in rendered if one["kind"] == "PersistentVolumeClaim"]
    assert claims == ([["ReadWriteOnce"]] if night else [])
    for name, pod in pods(rendered).items():
        (home,) = (volume for volume in pod["volumes"] if volume["name"] == "home")
        (container,) = pod["containers"]
        assert ("persistentVolumeClaim" in home) == (not url or name.endswith("nightly"))
        assert {one["name"]: one.get("value") for one in container["env"]}.get("DAT_BUNDLES") == url
        secret = given.get("bundles", {}).get("existingSecret")
        assert container.get("envFrom", []) == ([{"secretRef": {"name": secret}}] if secret else [])


def test_a_night_that_the_gate_refused_is_not_run_again(rendered: list[dict]):
    for job in (one for one in rendered if one["kind"] == "CronJob"):
        (rule,) = job["spec"]["jobTemplate"]["spec"]["podFailurePolicy"]["rules"]
        assert rule["onExitCodes"] == {"containerName": "nightly", "operator": "In", "values": [3]}


def test_a_value_that_there_is_not_and_a_missing_card_are_refused():
    done = run("helm", "template", "shop", CHART, "--values", VALUES[0], "--set", "serve.replica=3")
    assert done.returncode and "replica" in done.stderr
    done = run("helm", "template", "shop", CHART)
    assert done.returncode and "give the dataset card" in done.stderr


def test_the_schema_of_the_values_is_made_of_them():
    assert (CHART / "values.schema.json").read_text() == schema.text(), "python -m deploy.schema writes it"


def test_chart_compose_and_dag_set_the_same_settings():
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["x-dat"]["environment"]
    dag = (ROOT / "docs" / "schedule" / "airflow_dag.py").read_text()
    for name in ("DAT_HOME", "DAT_DATASET", "DAT_REDIS", "DAT_UPDATER__BOOTSTRAP", "DAT_BUNDLES"):
        assert name in compose and f'"{name}"' in dag
        top, _, inner = name.removeprefix("DAT_").lower().partition("__")
        assert top in Settings.model_fields
        settings = yaml.safe_load((CHART / "values.yaml").read_text())["settings"]
        helpers = (CHART / "templates" / "_helpers.tpl").read_text()
        assert name in helpers or (settings[top][inner] if inner else settings[top])
