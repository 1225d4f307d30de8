"""One real night on a made-up market, shared by the tests that look at its output."""

import contextlib
from dataclasses import dataclass
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from cli.nightly import run_night
from feature_repo.card import DatasetCard
from model.settings.model import DATConfig
from model.settings.night import NightConfig
from model.settings.settings import Settings
from spark_jobs.run_log import NightSummary
from spark_jobs.training_set import folder_of
from tests.market import write_market
from tests.training.data import SMALL


class Silent:
    """Progress that nobody watches."""

    def stage(self, name, total=None):
        return contextlib.nullcontext(lambda more: None)

    def tell(self, text):
        pass


@dataclass(frozen=True)
class FinishedNight:
    settings: Settings
    card: DatasetCard
    summary: NightSummary

    @property
    def folder(self) -> Path:
        """The training set's."""
        return folder_of(self.settings.home, self.summary.date)


def market_settings(folder: Path, **night) -> Settings:
    card = write_market(folder)
    # A model of two epochs need not be good: the gate has tests of its own.
    gate = {"gate_popularity": False, "gate_live": False}
    config = NightConfig(model=DATConfig(epochs=2, tower=SMALL), **(gate | night))
    return Settings(home=folder / "home", data=folder, dataset=str(card), night=config)


@pytest.fixture(scope="session")
def finished_night(tmp_path_factory: pytest.TempPathFactory, spark: SparkSession) -> FinishedNight:
    settings = market_settings(tmp_path_factory.mktemp("night"))
    return FinishedNight(settings, settings.card, run_night(settings, progress=Silent()))
