"""The servers that tests share, and which lane a test runs in, by what it uses of them.

``dat check`` runs the tests that use none of :data:`SERVERS` and train nothing. In ``dat test`` each lane is a process:
all tests that use Spark are one lane, for which it starts once; so are those that use Kafka; the others go by file.
"""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from devstack.broker import LocalBroker
from devstack.redis import LocalRedis
from model.settings.night import SMALL_LOG_JAVA

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from model.settings.updater import KafkaConnection

PARTITIONS = 2
SERVERS = {"spark", "broker", "spare_broker", "local_broker", "secure", "dat"}
SMALL_FRAMES = {
    "spark.sql.codegen.wholeStage": "false",
    "spark.sql.codegen.factoryMode": "NO_CODEGEN",
    "spark.sql.adaptive.enabled": "false",
    "spark.sql.shuffle.partitions": "2",
}
"""Spark compiles plans of some thousand rows longer than it runs them. Nights in other processes have its defaults."""
_NUMBER = count()


def pytest_configure(config: pytest.Config) -> None:
    # Each lane is a process: with a thread a core in each of them, small matrices wait for each other.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    # For nights in this process and in others alike.
    os.environ.setdefault("DAT_NIGHT__DRIVER_JAVA_OPTIONS", SMALL_LOG_JAVA)
    os.environ.setdefault("DAT_NIGHT__DRIVER_MEMORY", "1g")
    os.environ.setdefault("DAT_NIGHT__CORES", "2")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        used = SERVERS & set(getattr(item, "fixturenames", ()))
        if used:
            item.add_marker("server")
        lane = next((name for name in ("spark", "broker") if name in used), item.path.stem)
        item.add_marker(pytest.mark.xdist_group(lane))


@pytest.fixture(scope="session")
def spark(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[SparkSession]":
    """One Spark for the run: a night in this process joins it."""
    from cli.spark_jars import kafka_jars, s3_jars
    from model.settings.settings import Settings
    from spark_jobs.session import spark_session

    with spark_session(Settings().night, tmp_path_factory.mktemp("spark"), [*kafka_jars(), *s3_jars()]) as running:
        for name, value in SMALL_FRAMES.items():
            running.conf.set(name, value)
        yield running


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalBroker]:
    """One real broker for the session; :func:`kafka` has topics of its own for each test."""
    with LocalBroker(tmp_path_factory.mktemp("kafka")) as running:
        yield running


@pytest.fixture(scope="session")
def _spare_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalBroker]:
    spare = LocalBroker(tmp_path_factory.mktemp("spare-kafka"))
    yield spare
    spare.stop()


@pytest.fixture
def spare_broker(_spare_broker: LocalBroker) -> LocalBroker:
    """A running broker that the test may stop, kill and start again."""
    if _spare_broker.pid is None:
        _spare_broker.start()
    return _spare_broker


@pytest.fixture
def local_broker(tmp_path: Path) -> Callable[..., LocalBroker]:
    """Makes a broker of the test's own, whose files and properties it may change."""
    return lambda **options: LocalBroker(tmp_path / "kafka", **options)


@pytest.fixture
def local_redis(tmp_path: Path) -> Callable[..., LocalRedis]:
    """Makes a Redis server, or a cluster, of the test's own."""
    if not shutil.which("redis-server"):
        pytest.skip("there is no redis-server on the PATH")
    return lambda **options: LocalRedis(tmp_path / "redis", **options)


@pytest.fixture
def kafka(broker: LocalBroker, monkeypatch: pytest.MonkeyPatch) -> "KafkaConnection":
    """The broker with empty topics of the test's own, of two partitions each; processes that it starts use them too."""
    connection = fresh_topics(broker)
    monkeypatch.setenv("DAT_UPDATER__BOOTSTRAP", connection.bootstrap)
    monkeypatch.setenv("DAT_UPDATER__PREFIX", connection.prefix)
    return connection


def fresh_topics(broker: LocalBroker, partitions: int = PARTITIONS) -> "KafkaConnection":
    """Topics under a prefix that nobody has used."""
    from model.settings.updater import KafkaConnection
    from streaming.kafka.clients import quiet_kafka
    from streaming.kafka.topics import create_topics

    quiet_kafka()
    connection = KafkaConnection(bootstrap=broker.bootstrap, prefix=f"test{next(_NUMBER)}.")
    create_topics(connection, partitions)
    return connection


@pytest.fixture
def dat() -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    """Starts ``dat <verb> …`` as a process, its output in pipes; keyword arguments are settings in the environment.

    What still runs when the test ends is killed.
    """
    processes = []

    def start(*arguments: object, **environment: str) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, "-m", "cli", *map(str, arguments)], env=os.environ | environment,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        processes.append(process)
        return process

    yield start
    for process in processes:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
