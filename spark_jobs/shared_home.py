"""A cluster's executors write where the driver reads, or nothing lands: so a night looks before it begins."""

import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from pyspark.sql import SparkSession

from feature_repo.place import Place
from spark_jobs.session import is_local


class SharedHomeError(RuntimeError):
    """The home folder is not one place for driver and executors. The message says what to do."""


def check_shared(spark: SparkSession, home: Place) -> None:
    """Let tasks on the executors see a file of the driver's and write one each; the driver must find them all.
    A home by URL is where it is for all of them.

    Raises:
        SharedHomeError: some executor has another folder at that path, or none, or may not write to it.
    """
    if is_local(spark) or not isinstance(home, Path):
        return
    probe = home / f".probe-{uuid.uuid4().hex}"
    probe.mkdir()
    try:
        (probe / "driver").touch()
        tasks = 2 * spark.sparkContext.defaultParallelism
        failed = spark.sparkContext.parallelize(range(tasks), tasks).mapPartitions(_look(str(probe))).collect()
        lost = tasks - len(failed) - len(list(probe.glob("task-*")))
        if failed or lost:
            raise SharedHomeError(
                f"executors of {spark.sparkContext.master} do not have {home} as the driver has it "
                f"({failed[0] if failed else 'what they write does not arrive'}): give a home by URL "
                "(s3://…), or one that is mounted on all machines at one path, with --home or DAT_HOME"
            )
    finally:
        for path in probe.glob("*"):
            path.unlink()
        probe.rmdir()


def _look(probe: str) -> Callable[[Iterable[int]], Iterable[str]]:
    def look(numbers: Iterable[int]) -> Iterator[str]:
        import socket
        from pathlib import Path

        folder = Path(probe)
        for number in numbers:
            if not (folder / "driver").is_file():
                yield f"{socket.gethostname()} does not see it"
                continue
            try:
                (folder / f"task-{number}").touch()
            except OSError as error:
                yield f"{socket.gethostname()}: {error.strerror}"

    return look
