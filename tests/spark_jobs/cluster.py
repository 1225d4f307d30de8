"""A real Spark cluster on this machine: a standalone master and a worker, whose disk may be its own."""

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType

import pyspark
import pytest

SPARK = Path(pyspark.__file__).parent
REPOSITORY = Path(__file__).parents[2]


class LocalCluster:
    """Started with ``with``.

    Args:
        private: A folder in whose place the worker and its executors see an empty one of their own.
    """

    def __init__(self, folder: Path, private: Path | None = None):
        if private and (not shutil.which("unshare") or os.geteuid()):
            pytest.skip("a worker with a disk of its own needs unshare, and root")
        self.folder, self.private = folder, private
        self.processes: list[subprocess.Popen] = []

    def __enter__(self) -> "LocalCluster":
        try:
            return self._started()
        except BaseException:
            self.__exit__(None, None, None)
            raise

    def _started(self) -> "LocalCluster":
        self.folder.mkdir(parents=True)
        common = ["--host", "127.0.0.1", "--port", "0", "--webui-port", "0"]
        port = self._start("master", ["deploy.master.Master", *common], r"'sparkMaster' on port (\d+)")
        self.url = f"spark://127.0.0.1:{port}"
        worker = ["deploy.worker.Worker", *common, "-c", "2", "-m", "1g", "-d", str(self.folder), self.url]
        self._start("worker", worker, "registered with master", self.private)
        return self

    def _start(self, name: str, arguments: list[str], ready: str, private: Path | None = None) -> str:
        command = [str(SPARK / "bin" / "spark-class"), f"org.apache.spark.{arguments[0]}", *arguments[1:]]
        if private:
            hide = 'mount -t tmpfs tmpfs "$0" && exec "$@"'
            command = ["unshare", "--mount", "sh", "-c", hide, str(private), *command]
        log = self.folder / f"{name}.log"
        environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "SPARK_LOCAL_IP": "127.0.0.1"}
        with log.open("w") as out:
            self.processes.append(subprocess.Popen(command, env=environment, stdout=out, stderr=out))
        for _ in range(1_000):
            if found := re.search(f"(?i){ready}", log.read_text()):
                return found[found.lastindex or 0]
            assert self.processes[-1].poll() is None, log.read_text()
            time.sleep(0.2)
        raise AssertionError(log.read_text())

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for process in reversed(self.processes):
            process.terminate()
            process.wait(30)

    def submit(self, *arguments: object, **environment: str) -> subprocess.CompletedProcess:
        """``spark-submit --master …`` of ``dat`` with some arguments; Spark puts what it prints into ``stdout``."""
        memory = ["--executor-memory", "1g", "--driver-memory", "1g"]
        options = ["--master", self.url, *memory, "--conf", "spark.sql.shuffle.partitions=3"]
        command = [SPARK / "bin" / "spark-submit", *options, REPOSITORY / "cli" / "__main__.py", *arguments]
        environment = os.environ | {"PYSPARK_PYTHON": sys.executable, "SPARK_LOCAL_IP": "127.0.0.1"} | environment
        return subprocess.run(
            [str(word) for word in command],
            cwd=self.folder, env=environment, capture_output=True, text=True, timeout=500, check=False,
        )  # fmt: skip
