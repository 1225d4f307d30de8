"""The compose file says what this command understands: there may be no Docker to try it with."""

from pathlib import Path

import typer.main
import yaml

from cli.main import build
from devstack.broker import KAFKA_VERSION
from model.settings.settings import Settings

COMPOSE = yaml.safe_load((Path(__file__).parents[2] / "docker-compose.yml").read_text())
OURS = {name: service for name, service in COMPOSE["services"].items() if service.get("image", "").startswith("dat-")}


def test_each_service_is_a_verb_with_options_that_it_has():
    verbs = typer.main.get_command(build()).commands
    assert set(OURS) == {"nightly", "updater-query", "updater-item", "serve"}
    for service in OURS.values():
        verb, *options = service["command"]
        verbs[verb].make_context(verb, options)  # raises on an option that does not exist or a value out of range


def test_each_environment_variable_is_a_setting(monkeypatch):
    for service in OURS.values():
        for name, value in service["environment"].items():
            monkeypatch.setenv(name, value.split(":-")[-1].rstrip("}"))
        settings = Settings()
        assert settings.updater.bootstrap == "kafka:9092" and settings.redis == "redis:6379"
        assert str(settings.home) in COMPOSE["services"]["serve"]["volumes"][0]


def test_workers_of_one_group_have_names_of_their_own():
    names = [service["environment"]["DAT_UPDATER__INSTANCE"] for name, service in OURS.items() if "updater" in name]
    assert len(set(names)) == len(names) == 2


def test_volumes_and_dependencies_exist():
    for service in COMPOSE["services"].values():
        assert set(service.get("depends_on", {})) <= set(COMPOSE["services"])
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert source.startswith("./") or source in COMPOSE["volumes"]


def test_the_broker_is_the_version_that_the_tests_use():
    assert COMPOSE["services"]["kafka"]["image"] == f"apache/kafka:{KAFKA_VERSION}"
