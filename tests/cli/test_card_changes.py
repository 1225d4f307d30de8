"""A night that changes the card does not touch what is registered for the service before it publishes."""

from pathlib import Path

import pytest

from cli.nightly import run_night
from feature_repo.card import DatasetCard
from feature_repo.store import open_store, service_fields
from model.settings.settings import Settings
from streaming.contract import ContractError, check_services
from tests.tiny import TINY, card_services, tiny_bundle, tiny_store

CHANGED = TINY.model_copy(update={"query": TINY.query.model_copy(update={"features": {}})})


class Card(Settings):
    @property
    def card(self) -> DatasetCard:
        return CHANGED


@pytest.mark.server  # it imports Spark
def test_a_service_restarts_on_its_bundle_while_a_night_with_another_card_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    tiny_store(tmp_path)
    manifest = tiny_bundle().manifest
    seen = []

    class Night:
        def __init__(self, **given):
            self.given = given

        def run(self, day, again):
            assert service_fields(self.given["store"], "query_tower") == card_services(CHANGED)["query_tower"]
            check_services(open_store(tmp_path), manifest)  # what a service does as it starts
            seen.append("trained")
            self.given["before_publish"]()
            with pytest.raises(ContractError):
                check_services(open_store(tmp_path), manifest)

    monkeypatch.setattr("spark_jobs.nightly.Night", Night)
    monkeypatch.setattr("devstack.broker.java", lambda: "java")
    run_night(Card(home=tmp_path), log=False)
    assert seen == ["trained"]
