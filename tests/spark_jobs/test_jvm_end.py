"""A night whose Spark cannot go on ends in a sentence that names the step, the cause and the setting."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.market import write_market

pytestmark = pytest.mark.server

KILLED_WHILE_IT_CHECKS = """
import os, signal
from pyspark import SparkContext
from spark_jobs import nightly
from cli.main import main

def check_days(window, *_):
    os.kill(SparkContext._gateway.proc.pid, signal.SIGKILL)
    window.count()

nightly.check_days = check_days
main()
"""
THREE_JVMS = """
import logging, sys
from pathlib import Path
from model.settings.night import NightConfig
from spark_jobs.jvm_end import SparkEnded
from spark_jobs.session import spark_session

def told(memory, use):
    config = NightConfig(cores="1", driver_memory=memory)
    try:
        with spark_session(config, Path(sys.argv[1]), step=lambda: "test") as spark:
            return use(spark)
    except SparkEnded as error:
        return error

print(told("100m", lambda spark: None))
print(told("600m", lambda spark: spark.range(1).selectExpr("length(repeat('x', int(id + 1000000000)))").collect()))
print(told("600m", lambda spark: spark.range(3).count()))
"""


def python(
    script: str, *arguments: object, cwd: Path | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "ignore", "-c", script, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=os.environ | environment)


def test_a_night_whose_jvm_is_killed_says_at_which_step_and_what_to_do(tmp_path: Path):
    card = write_market(tmp_path)
    night = ["nightly", "--no-kafka", "--data", card, "--home", tmp_path / "home"]
    ended = python(
        KILLED_WHILE_IT_CHECKS, *night, DAT_DATA=str(tmp_path), DAT_NIGHT__DRIVER_MEMORY="1g", DAT_NIGHT__CORES="2"
    )
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr, ended.stderr
    (said,) = [line for line in ended.stderr.splitlines() if line.startswith("dat:")]
    assert "Spark's JVM died in the step 'check the clicks': signal 9 (SIGKILL)" in said
    assert "night.driver_memory = 1g" in said and "run the night again" in said


@pytest.mark.slow
def test_a_heap_that_is_full_and_one_that_is_too_small_name_the_setting_and_the_next_session_starts(tmp_path: Path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    ended = python(THREE_JVMS, tmp_path / "spark", cwd=elsewhere, PYTHONPATH=os.pathsep.join(sys.path))
    assert not list(elsewhere.iterdir()), "Spark writes nothing where a night is started"
    assert ended.returncode == 0, ended.stderr
    small, full, works = ended.stdout.splitlines()
    assert "did not start: [INVALID_DRIVER_MEMORY]" in small and "night.driver_memory = 100m" in small
    assert "ran out of memory in the step 'test' (java.lang.OutOfMemoryError: Java heap space, exit code 52)" in full
    assert "Raise its heap, night.driver_memory = 600m" in full
    assert works == "3"
    assert [path.name for path in (tmp_path / "spark").iterdir()] == ["spark.log"], "a dead JVM's shuffles are gone"
