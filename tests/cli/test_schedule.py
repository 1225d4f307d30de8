"""The schedules in the documents are what the schedulers take, and call the command as it is."""

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main

from cli.main import build

SCHEDULE = Path(__file__).parents[2] / "docs" / "schedule"
READ_DAG = """
import datetime, json, os, sys
os.environ |= {"AIRFLOW_HOME": sys.argv[2], "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}
from airflow.dag_processing.dagbag import DagBag

bag = DagBag(sys.argv[1])
dag = bag.dags["dat_nightly"]
(task,) = dag.tasks

class Run:
    run_after = datetime.datetime(2026, 3, 1, 1, 30)

class Variables:
    value = {"dat_command": "/opt/dat/dat"}

command = dag.get_template_env().from_string(task.bash_command).render(
    var=Variables, dag_run=Run, macros=datetime, run_id="scheduled__2026-03-01T01:30:00"
)
ended = {}
for status in (0, 1, 3):
    task.bash_command, task.env = f"exit {status}", {}
    try:
        task.execute({})
        ended[status] = None
    except Exception as error:
        ended[status] = type(error).__name__
print("\\n" + json.dumps({
    "errors": bag.import_errors, "command": command, "ended": ended, "retries": task.retries,
    "runs": dag.max_active_runs, "schedule": dag.schedule,
}, default=list))
"""


def options(arguments: list[str]) -> list[str]:
    """Parse a call of ``dat`` as the command itself does; the options that were given."""
    command = typer.main.get_command(build())
    verb = command.commands[arguments[0]]
    verb.make_context("dat", arguments[1:], resilient_parsing=False)
    return [argument for argument in arguments if argument.startswith("--")]


def test_the_crontab_line_of_the_documents_calls_the_command_as_it_is():
    (line,) = [
        line for line in (SCHEDULE.parent / "night.md").read_text().splitlines() if line.startswith("30 1 * * *")
    ]
    words = shlex.split(line.split("* * *", 1)[1].split(">>")[0])
    call = words[words.index("/opt/dat/dat") + 1 :]
    assert options(call) == ["--date", "--home"]


@pytest.mark.slow
def test_airflow_reads_the_dag(tmp_path: Path):
    """A real Airflow, in an environment of its own."""
    python = tmp_path / "airflow" / "bin" / "python"
    uv = [sys.executable, "-m", "uv", "--quiet"]
    made = subprocess.run([*uv, "venv", "--python", sys.executable, str(tmp_path / "airflow")], check=False)
    install = [*uv, "pip", "install", "--python", str(python), "--requirement", str(SCHEDULE / "requirements.txt")]
    if made.returncode or subprocess.run(install, timeout=400, check=False).returncode:
        pytest.skip("Airflow cannot be installed here")
    done = subprocess.run(
        [str(python), "-c", READ_DAG, str(SCHEDULE), str(tmp_path / "home")],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["errors"] == {} and found["schedule"] == "30 1 * * *" and found["runs"] == 1
    # A status of 3 fails for good; Airflow tries another one again.
    assert found["ended"] == {"0": None, "1": "AirflowException", "3": "AirflowFailException"} and found["retries"] == 2
    words = shlex.split(found["command"])
    assert words[0] == "/opt/dat/dat" and words[words.index("--date") + 1] == "2026-02-28"
    assert options(words[1:]) == ["--date", "--json"]
