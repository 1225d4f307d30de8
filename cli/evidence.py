"""Results as files that say where they come from: what the tables of the documents are made of."""

import json
import os
import platform
import shlex
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from feature_repo.atomic import atomic_write


def write_evidence(file: Path, result: dict[str, Any], command: str | None = None) -> None:
    """Write a result as JSON, with its :func:`provenance`; ``command`` is this process's command line by default."""
    made = provenance() | ({"command": command} if command else {})
    with atomic_write(file) as staging:
        staging.write_text(json.dumps(result | {"provenance": made}, indent=2) + "\n")


def provenance() -> dict[str, Any]:
    """The command line, the code's version, the date, and the machine."""
    from spark_jobs.code_version import code_version

    return {
        "command": _command(),
        **code_version(),
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "python": platform.python_version(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "cpu": _cpu(),
    }


def _command() -> str:
    program, *arguments = sys.argv
    verb = [] if Path(program).stem in ("dat", "__main__") else ["bench", Path(program).stem]
    models = "DAT_NIGHT__MODEL__"  # the environment's settings without which the figures are others
    settings = [f"{name}={value}" for name, value in sorted(os.environ.items()) if name.startswith(models)]
    return shlex.join([*settings, "dat", *verb, *map(_of_any_machine, arguments)])


def _of_any_machine(argument: str) -> str:
    """An argument without this machine's folders: a path as it is from here, or its name."""
    option, equals, value = argument.partition("=") if argument.startswith("--") else ("", "", argument)
    path, here = Path(value), Path.cwd()
    if not path.is_absolute():
        return argument
    return f"{option}{equals}{path.relative_to(here) if path.is_relative_to(here) else path.name}"


def _cpu() -> str:
    """The processor's name, as Linux tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
