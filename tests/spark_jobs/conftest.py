"""One real night on a made-up market, shared by the tests that look at its output."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from cli.nightly import run_night, spark_kafka_jars
from cli.settings import Settings
from feature_repo.card import DatasetCard
from spark_jobs.config import NightConfig
from spark_jobs.nightly import NightSummary
from spark_jobs.training_set import folder_of
from tests.market import write_market
from training.config import DATConfig


@pytest.fixture(scope="session", autouse=True)
def kafka_connector() -> Iterator[None]:
    """Spark takes its jars when its JVM starts, and all tests of a run share one JVM, whichever starts it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYSPARK_SUBMIT_ARGS", f"--jars {','.join(map(str, spark_kafka_jars()))} pyspark-shell")
        yield


class Silent:
    """Progress that nobody watches."""

    def stage(self, name, total=None):
        return contextlib.nullcontext(lambda more: None)


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
    config = NightConfig(model=DATConfig(epochs=2), **night)
    return Settings(home=folder / "home", data=folder, dataset=str(card), night=config)


@pytest.fixture(scope="session")
def finished_night(tmp_path_factory: pytest.TempPathFactory) -> FinishedNight:
    settings = market_settings(tmp_path_factory.mktemp("night"))
    return FinishedNight(settings, settings.card, run_night(settings, progress=Silent()))
