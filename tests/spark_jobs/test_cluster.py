"""A night on a cluster: Spark's own settings count, and its home is where all machines see it, or it is refused."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from model.settings.updater import KafkaConnection
from spark_jobs import session
from tests.market import write_market
from tests.objects import Bucket
from tests.objects import bucket as bucket
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
def test_a_night_on_the_master_that_spark_submit_names_has_its_home_in_an_object_store_and_the_day_starts_from_there(
    tmp_path: Path, bucket: Bucket, kafka: KafkaConnection, local_redis: Callable, dat: Callable
):
    """The workers have a disk of their own, and so has each process of the day."""
    card, told, home = write_market(tmp_path), tmp_path / "night.json", f"s3a://{bucket.name}/bundles/dat"
    driver = tmp_path / "driver"
    driver.mkdir()
    arguments = ("nightly", "--data", card, "--home", home, "--json", told)
    with local_redis() as redis, LocalCluster(tmp_path / "cluster", private=driver) as cluster:
        shared = {"DAT_DATA": str(tmp_path), "DAT_REDIS": redis.address, "DAT_SCRATCH": str(driver)} | SMALL
        ended = cluster.submit(*arguments, **shared)
        assert ended.returncode == 0, ended.stdout + ended.stderr
        night = json.loads(told.read_text())
        assert (night["spark_master"], night["gate"]["verdict"]) == (cluster.url, "published")
        roots = {key.removeprefix("dat/").split("/")[0] for key in bucket.keys}
        assert roots == {"activity", "bundles", "dataset", "lake", "loaded", "nights", "offline", "training_sets"}
        here = {path.name for path in next(driver.iterdir()).iterdir()}
        assert not here & (roots - {"bundles", "training_sets"}), "what is shared lies in the store alone"
        again = cluster.submit(*arguments, **shared)
        assert again.returncode == 0, again.stdout + again.stderr
        assert json.loads(told.read_text())["bundle"] == night["bundle"]
        started = {}
        for verb, options in (("updater", ()), ("serve", ("--data", card, "--port", 0))):
            process = dat(verb, "--home", home, *options, **shared | {"DAT_SCRATCH": str(tmp_path / verb)})
            started[verb] = process.stdout.readline()
            assert night["bundle"] in started[verb], process.stderr.read()
    assert started["updater"].startswith("updating ") and started["serve"].startswith("serving ")
