"""The Spark session that all jobs use."""

import contextlib
import logging
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from py4j.protocol import Py4JError
from pyspark.sql import SparkSession

from spark_jobs.config import NightConfig


@contextmanager
def spark_session(config: NightConfig, scratch: Path, jars: list[Path] | None = None) -> Iterator[SparkSession]:
    """A local Spark session, or the cluster's when ``spark-submit`` set a master; it stops with the context.

    Args:
        scratch: Folder for Spark's shuffles and warehouse.
        jars: Connector jars to put on the class path.
    """
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)  # workers must run this environment, not the system's
    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    builder = (
        SparkSession.builder.appName("dat-nightly")
        .config("spark.driver.memory", config.driver_memory)
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.ui.enabled", "false")
        .config("spark.ui.showConsoleProgress", "false")
        .config("spark.local.dir", str(scratch))
        .config("spark.sql.warehouse.dir", str(scratch / "warehouse"))
        .config("spark.sql.session.timeZone", "UTC")
        .config("spark.sql.parquet.outputTimestampType", "TIMESTAMP_MICROS")  # Feast's readers reject INT96
        .config("spark.sql.shuffle.partitions", "8")
        .config("spark.sql.maxConcurrentOutputFileWriters", "32")  # a task's rows by day without sorting them first
        .config("spark.sql.execution.arrow.pyspark.enabled", "true")
    )
    if "spark.master" not in os.environ.get("PYSPARK_SUBMIT_ARGS", ""):
        builder = builder.master(f"local[{config.cores}]")
    if jars:
        builder = builder.config("spark.jars", ",".join(str(jar) for jar in jars))
    scratch.mkdir(parents=True, exist_ok=True)
    # Not in the main thread: there Ctrl-C would leave a half-started JVM that never ends, and PySpark would put its own
    # handler in place of ours, which calls into the JVM from within the call that it interrupts.
    with _stderr_to(scratch / "spark.log"), ThreadPoolExecutor(1, "start-spark") as starter:
        spark = starter.submit(builder.getOrCreate).result()
    spark.sparkContext.setLogLevel("ERROR")
    # What fails is raised to us; py4j also logs it, with a traceback for every call that Ctrl-C interrupts.
    logging.getLogger("py4j").setLevel(logging.CRITICAL)
    try:
        yield spark
    finally:
        with contextlib.suppress(
            Py4JError, OSError
        ):  # after an interrupted call the JVM may not answer: it ends with us
            spark.stop()


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
