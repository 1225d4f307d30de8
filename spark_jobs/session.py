"""The Spark session that all jobs use: on this machine, or where spark-submit or Spark's own settings say.

What was said in Spark's ways counts before the night's settings: ``spark-submit --master … --conf …``,
``PYSPARK_SUBMIT_ARGS``, ``spark-defaults.conf``.
"""

import contextlib
import logging
import os
import shlex
import shutil
import socket
import sys
from argparse import ArgumentParser
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from py4j.protocol import Py4JError
from pyspark import SparkConf, SparkContext
from pyspark.sql import SparkSession

from feature_repo.atomic import runs
from feature_repo.place import Place, UrlPath
from model.settings.night import NightConfig
from spark_jobs.jvm_end import JvmEnd, forget_session, has_ended

ALWAYS = {
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",  # Feast's readers reject INT96
    "spark.sql.execution.arrow.pyspark.enabled": "true",
}
"""What the rows depend on."""


@contextmanager
def spark_session(
    config: NightConfig, scratch: Path, jars: list[Path] | None = None, step: Callable[[], str] = lambda: ""
) -> Iterator[SparkSession]:
    """The session of the master that Spark was told of, or a local one; it stops with the context.

    A session that this process already has is joined, whatever its settings, and left running.

    Args:
        scratch: Folder for local Spark's log, and for its shuffles and warehouse while it runs.
        jars: Connector jars to put on the class path.
        step: What is being done with it, for the sentence on its end.

    Raises:
        SparkEnded: its JVM did not start, has ended, or is out of memory.
    """
    if (running := SparkSession._instantiatedSession) is not None:
        yield running
        return
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)  # workers must run this environment, not the system's
    scratch.mkdir(parents=True, exist_ok=True)
    # Not in the main thread: there Ctrl-C would leave a half-started JVM that never ends, and PySpark would put its own
    # handler in place of ours, which calls into the JVM from within the call that it interrupts.
    local_dir = _local_dir(scratch)
    artifacts = Path("artifacts").absolute()
    had_artifacts = artifacts.exists()
    said = _said()
    end = JvmEnd(config, said, scratch / "spark.log")
    try:
        with _stderr_to(scratch / "spark.log"), ThreadPoolExecutor(1, "start-spark") as starter:
            spark = starter.submit(_start, config, said, local_dir, jars or []).result()
    except Exception as error:
        if told := end.no_start(error):
            forget_session()
            raise told from error
        raise
    spark.sparkContext.setLogLevel("ERROR")
    # What fails is raised to us; py4j also logs it, with a traceback for every call that Ctrl-C interrupts.
    logging.getLogger("py4j").setLevel(logging.CRITICAL)
    try:
        yield spark
    except Exception as error:
        if told := end.of(error, step()):
            raise told from error
        raise
    finally:
        if has_ended():
            forget_session()
        else:
            with contextlib.suppress(Py4JError, OSError):  # after an interrupted call the JVM may not answer
                spark.stop()
        shutil.rmtree(local_dir, ignore_errors=True)
        if not had_artifacts:  # Spark makes this folder where it is started, and leaves it there
            with contextlib.suppress(OSError):  # which says that something is in it
                for empty in [*artifacts.iterdir(), artifacts]:
                    empty.rmdir()


def _local_dir(scratch: Path) -> Path:
    """This process's own folder for shuffles, which a JVM that is killed leaves behind; others' that are gone go."""
    ours = f"local-{socket.gethostname()}-"
    for left in scratch.glob(f"{ours}*"):
        if not runs(int(left.name.removeprefix(ours))):
            shutil.rmtree(left, ignore_errors=True)
    made = scratch / f"{ours}{os.getpid()}"
    made.mkdir(exist_ok=True)
    return made


def reach_store(spark: SparkSession, home: Place) -> None:
    """Have Spark find a home by URL where Arrow does. What Spark itself was told of the store counts."""
    if not isinstance(home, UrlPath) or not str(home).startswith("s3:"):
        return
    endpoint, said = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL"), spark.sparkContext
    ours = {
        "fs.s3a.endpoint": endpoint,
        "fs.s3a.path.style.access": "true" if endpoint else None,
        "fs.s3a.endpoint.region": os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION"),
    }
    hadoop = said._jsc.hadoopConfiguration()
    hadoop.setClassLoader(spark._jsparkSession.sharedState().jarClassLoader())  # jars may have come after the start
    for name, value in ours.items():
        if value and not said.getConf().contains(f"spark.hadoop.{name}"):
            hadoop.set(name, value)
    if hadoop.get("fs.s3.impl") is None:  # some clouds' Spark has one of its own
        hadoop.set("fs.s3.impl", "org.apache.hadoop.fs.s3a.S3AFileSystem")


def is_local(spark: SparkSession) -> bool:
    """Whether the executors are threads of this machine's JVM."""
    return (spark.sparkContext.master or "local").startswith("local")


def _start(config: NightConfig, said: dict[str, str], scratch: Path, jars: list[Path]) -> SparkSession:
    launch = {
        "spark.master": f"local[{config.cores}]",
        "spark.app.name": "dat-nightly",
        "spark.driver.memory": config.driver_memory,
        "spark.driver.extraJavaOptions": config.driver_java_options,
    }
    if jars:
        launch["spark.jars"] = ",".join(str(jar) for jar in jars)
    if "PYSPARK_GATEWAY_PORT" in os.environ:  # under spark-submit the JVM runs, and knows all that was said
        SparkContext._ensure_initialized()
        said = dict(SparkConf().getAll())
    local = said.get("spark.master", "local").startswith("local")
    if local:
        # Not on a cluster: its executors could not reach a driver that calls itself 127.0.0.1.
        os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    started_now = SparkContext._gateway is None
    ours = SparkConf(loadDefaults=False).setAll([pair for pair in launch.items() if pair[0] not in said])
    SparkContext._ensure_initialized(conf=ours)
    wanted = {
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        # An item with many clicks is spilled in many files, all of which are read at once: each would take heap of its
        # own to read ahead.
        "spark.unsafe.sorter.spill.read.ahead.enabled": "false",
        "spark.sql.maxConcurrentOutputFileWriters": "32",  # a task's rows by day without sorting them first
    }
    if local:
        wanted |= {
            "spark.driver.bindAddress": "127.0.0.1",
            "spark.driver.host": "127.0.0.1",
            "spark.local.dir": str(scratch),
            "spark.sql.warehouse.dir": str(scratch / "warehouse"),
        }
    builder = SparkSession.builder
    for name, value in (launch | wanted | ALWAYS).items():
        if name in ALWAYS or name not in said:
            builder = builder.config(name, value)
    spark = builder.getOrCreate()
    if not started_now or "spark.jars" in said:  # too late for a setting
        for jar in jars:
            spark.sql(f"ADD JAR '{jar}'")
    return spark


def _said() -> dict[str, str]:
    """What the JVM will be told by ``spark-defaults.conf`` and ``PYSPARK_SUBMIT_ARGS``, of which the latter wins."""
    home = os.environ.get("SPARK_HOME") or str(Path(sys.modules["pyspark"].__file__ or "").parent)
    defaults = Path(os.environ.get("SPARK_CONF_DIR") or Path(home) / "conf") / "spark-defaults.conf"
    lines = defaults.read_text().splitlines() if defaults.is_file() else []
    pairs = [line.replace("=", " ", 1).split(None, 1) for line in lines if line.strip().startswith("spark.")]
    said = {pair[0]: pair[1].strip() for pair in pairs if len(pair) == 2}
    words = shlex.split(os.environ.get("PYSPARK_SUBMIT_ARGS", ""))
    if words and words[-1] != "pyspark-shell":
        os.environ["PYSPARK_SUBMIT_ARGS"] = shlex.join([*words, "pyspark-shell"])  # or there is nothing to run
    parser = ArgumentParser(add_help=False, allow_abbrev=False)
    for option in ("master", "name", "jars", "driver-memory", "driver-java-options"):
        parser.add_argument(f"--{option}")
    parser.add_argument("--conf", action="append", default=[])
    options, _ = parser.parse_known_args(words)
    said |= dict(pair.split("=", 1) for pair in options.conf if "=" in pair)
    named = {
        "spark.master": options.master or os.environ.get("MASTER"),
        "spark.app.name": options.name,
        "spark.jars": options.jars,
        "spark.driver.memory": options.driver_memory,
        "spark.driver.extraJavaOptions": options.driver_java_options,
    }
    return said | {name: value for name, value in named.items() if value}


def side_by_side(spark: SparkSession, *jobs: Callable[[], object]) -> None:
    """Run jobs at a time: while one is planned or committed, the tasks of another keep the cores busy."""
    with ThreadPoolExecutor(len(jobs), "spark-job") as pool:
        try:
            for running in [pool.submit(job) for job in jobs]:
                running.result()
        except BaseException:  # also Ctrl-C: the others would have to end first
            with contextlib.suppress(Py4JError, OSError):
                spark.sparkContext.cancelAllJobs()
            raise


@contextmanager
def _stderr_to(file: Path) -> Iterator[None]:
    """Start child processes with their standard error in a file: the JVM would write over the progress for good."""
    sys.stderr.flush()
    own = os.dup(2)
    with file.open("ab") as log:
        os.dup2(log.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(own, 2)
        os.close(own)
