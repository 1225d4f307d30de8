"""How Spark's JVM ended, in one sentence: which step it was at, of what it died, and what to do."""

import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

from py4j.protocol import Py4JError
from pyspark import SparkContext
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

from model.settings.night import NightConfig

_HEAP_FULL = re.compile(r"java\.lang\.OutOfMemoryError(?:: [\w ]+)?")
_TASK_FULL = re.compile(r"SparkOutOfMemoryError|UNABLE_TO_ACQUIRE_MEMORY")
_EXECUTOR = re.compile(r"ExecutorLostFailure.*")
_WORKER = re.compile(r"Python worker exited unexpectedly")
_NO_START = re.compile(r"(?:Invalid|Could not reserve|Unrecognized|Too small|\[INVALID_DRIVER_MEMORY\]).*")
_WAIT_S = 5  # a JVM that ends first cancels its jobs and closes its connections
_AGAIN = "Then run the night again: finished steps are kept"


class SparkEnded(RuntimeError):
    """Spark cannot go on, for its memory or because its JVM has ended. The message says how, and what to do."""


class JvmEnd:
    """Tells what an error of Spark's comes from.

    Args:
        config: What local Spark was told, unless ``said`` (Spark's own ways) says otherwise.
        log: Where the JVM writes its standard error.
    """

    def __init__(self, config: NightConfig, said: dict[str, str], log: Path):
        self._log, self._offset = log, log.stat().st_size if log.is_file() else 0
        self._local = said.get("spark.master", "local").startswith("local")
        in_sparks_way = "spark.driver.memory" in said
        heap = said.get("spark.driver.memory", config.driver_memory)
        self._heap = f"{'spark.driver.memory' if in_sparks_way else 'night.driver_memory'} = {heap}"

    def of(self, error: Exception, step: str) -> SparkEnded | None:
        """The sentence for an error, None if it comes neither from the JVM's end nor from want of memory.

        Args:
            step: What was being done, for the sentence; empty: not known.
        """
        if not isinstance(error, (Py4JError, PySparkException, OSError, EOFError)):
            return None
        at = f" in the step '{step}'" if step else ""
        said = "\n".join(_texts(error))
        code = _exit_code(_WAIT_S)
        heard = said if code is None else self._last_words() + said
        if full := _HEAP_FULL.search(heard):
            ended = "" if code is None else f", {_how(code)}"
            return SparkEnded(f"Spark's JVM ran out of memory{at} ({full[0]}{ended}). {self._raise_heap()} {_AGAIN}")
        if code is not None:
            return SparkEnded(f"Spark's JVM died{at}: {_how(code)}. {self._after(code)} {_AGAIN}")
        if _TASK_FULL.search(said):
            return SparkEnded(f"a task of Spark's found no memory left{at}. {self._raise_heap()} {_AGAIN}")
        if lost := _EXECUTOR.search(said):
            return SparkEnded(f"Spark lost an executor{at}: {lost[0]}. Raise spark.executor.memory. {_AGAIN}")
        if _WORKER.search(said):
            return SparkEnded(
                f"a Python process of Spark's died{at}, mostly by the kernel for want of memory (dmesg tells). Give "
                f"the machine or container more memory, or lower night.cores. {_AGAIN}"
            )
        return None

    def no_start(self, error: Exception) -> SparkEnded | None:
        """The sentence for a JVM that did not start with what it was told; None if the error is another one."""
        if not isinstance(error, (Py4JError, PySparkException)):
            return None
        why = _NO_START.search(self._last_words() + "\n".join(_texts(error)))
        reason = why[0].strip().rstrip(".") if why else f"see {self._log}"
        return SparkEnded(f"Spark's JVM did not start: {reason}. Its heap: {self._heap}; its log: {self._log}")

    def _last_words(self) -> str:
        if not self._log.is_file():
            return ""
        with self._log.open("rb") as log:
            log.seek(self._offset)
            return log.read(1 << 20).decode(errors="replace") + "\n"

    def _raise_heap(self) -> str:
        where = "" if self._local else " (or spark.executor.memory, if it was an executor's)"
        return f"Raise its heap, {self._heap}{where}; the machine needs 2 GB more than the heap."

    def _after(self, code: int) -> str:
        if code in (-signal.SIGKILL, 128 + signal.SIGKILL):
            return (
                "Mostly the kernel has done that for want of memory (dmesg tells): give the machine or container 2 GB "
                f"more than the heap, {self._heap}, or lower that."
            )
        return f"Its heap was {self._heap}; its log is {self._log}."


def _exit_code(wait_s: float) -> int | None:
    """The JVM's exit code, or minus its signal; None: it lives, or it is not our child."""
    process: subprocess.Popen | None = getattr(SparkContext._gateway, "proc", None)
    if process is None:
        return None
    try:
        return process.wait(wait_s)
    except subprocess.TimeoutExpired:
        return None


def forget_session() -> None:
    """Let go of a session whose JVM has ended or cannot be used, so that this process can start another one."""
    process: subprocess.Popen | None = getattr(SparkContext._gateway, "proc", None)
    if process is not None:
        process.kill()
        process.wait()
    SparkContext._gateway = SparkContext._jvm = SparkContext._active_spark_context = None
    SparkSession._instantiatedSession = None


def has_ended() -> bool:
    """Whether the JVM that this process has started is gone."""
    return _exit_code(0) is not None


def _texts(error: BaseException | None) -> Iterator[str]:
    """What an error and its causes say; a Java error asks the JVM for that, which may be gone."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        try:
            yield str(error)
        except Exception:
            yield type(error).__name__
        error = error.__cause__ or error.__context__


def _how(code: int) -> str:
    if code < 0:
        return f"signal {-code} ({signal.Signals(-code).name})"
    return f"exit code {code}"
