"""A night on a cluster: Spark's own settings count, and a home that executors do not share is refused."""

import json
from pathlib import Path

import pytest

from spark_jobs import session
from tests.market import write_market
from tests.spark_jobs.cluster import LocalCluster

pytestmark = pytest.mark.server
SMALL = {"DAT_NIGHT__MODEL__EPOCHS": "1", "DAT_NIGHT__DRIVER_MEMORY": "1g"}


def test_what_spark_was_told_by_its_files_and_variables_is_known(tmp_path: Path, monkeypatch):
    (tmp_path / "spark-defaults.conf").write_text("# ours\nspark.master yarn\nspark.driver.memory=9g\n")
    monkeypatch.setenv("SPARK_CONF_DIR", str(tmp_path))
    monkeypatch.delenv("MASTER", raising=False)
    monkeypatch.setenv("PYSPARK_SUBMIT_ARGS", "")
    assert session._said() == {"spark.master": "yarn", "spark.driver.memory": "9g"}
    monkeypatch.setenv(
        "PYSPARK_SUBMIT_ARGS", "--master spark://a:1 --conf spark.driver.host=10.1.2.3 --driver-memory 2g"
    )
    assert session._said() == {
        "spark.master": "spark://a:1", "spark.driver.host": "10.1.2.3", "spark.driver.memory": "2g"
    }  # fmt: skip
    assert session.os.environ["PYSPARK_SUBMIT_ARGS"].endswith(" pyspark-shell")


@pytest.mark.slow
def test_a_home_that_the_executors_do_not_share_is_refused_before_anything_lands(tmp_path: Path):
    card, home = write_market(tmp_path), tmp_path / "home"
    home.mkdir()
    with LocalCluster(tmp_path / "cluster", private=home) as cluster:
        ended = cluster.submit("nightly", "--no-kafka", "--data", card, "--home", home, DAT_DATA=str(tmp_path), **SMALL)
    assert ended.returncode == 1, ended.stdout
    assert f"executors of {cluster.url} do not have {home} as the driver has it" in ended.stdout
    assert not (home / "lake").exists() and not list(home.glob(".probe*"))


@pytest.mark.slow
def test_a_night_runs_on_the_master_that_spark_submit_names(tmp_path: Path):
    card, told = write_market(tmp_path), tmp_path / "night.json"
    arguments = ("nightly", "--no-kafka", "--data", card, "--home", tmp_path / "home", "--json", told)
    with LocalCluster(tmp_path / "cluster") as cluster:
        ended = cluster.submit(*arguments, DAT_DATA=str(tmp_path), **SMALL)
    assert ended.returncode == 0, ended.stdout
    night = json.loads(told.read_text())
    assert (night["spark_master"], night["gate"]["verdict"]) == (cluster.url, "published")
