"""Imports between the folders go one way, and day and answer load neither trainer nor Spark."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAY_IMPORT = {
    "feature_repo": set(),
    "model": {"feature_repo"},
    "training": {"feature_repo", "model"},
    "streaming": {"feature_repo", "model"},
    "serving": {"feature_repo", "model", "streaming"},
    "evaluation": {"feature_repo", "model", "training", "serving"},
    "spark_jobs": {"feature_repo", "model", "training", "evaluation"},
    "devstack": {"feature_repo", "model", "training", "evaluation", "spark_jobs", "streaming", "serving"},
    "cli": {"feature_repo", "model", "training", "evaluation", "spark_jobs", "streaming", "serving", "devstack"},
}
"""Which folders the files of each folder may import from; their own is always allowed."""


def imports(file: Path) -> set[str]:
    """Dotted names of all modules that a file imports, wherever in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


@pytest.mark.parametrize("folder", MAY_IMPORT)
def test_a_folder_imports_only_from_the_folders_below_it(folder: str) -> None:
    wrong = {
        f"{file.relative_to(ROOT)} imports {name}"
        for file in (ROOT / folder).rglob("*.py")
        for name in imports(file)
        if (top := name.split(".")[0]) in MAY_IMPORT and top not in MAY_IMPORT[folder] | {folder}
    }
    assert not wrong


def test_evaluation_imports_of_the_service_only_its_index() -> None:
    wrong = {
        f"{file.relative_to(ROOT)} imports {name}"
        for file in (ROOT / "evaluation").rglob("*.py")
        for name in imports(file)
        if name.startswith("serving") and not name.startswith("serving.index")
    }
    assert not wrong


@pytest.mark.server  # a process that imports Feast
@pytest.mark.parametrize("module", ["streaming.updater", "serving.http.api"])
def test_day_and_answer_import_where_torch_spark_and_duckdb_are_not_installed(module: str) -> None:
    """Feast takes torch where it finds it; so what cannot be found must not be missed."""
    absent = ("torch", "pyspark", "duckdb", "training", "evaluation", "implicit", "optuna")
    # Nor is Feast instrumented by typeguard, which takes seconds: ours is the first import.
    plain = "import feast; assert 'check_argument_types_internal' not in feast.FeatureView.__init__.__code__.co_names"
    script = f"import sys; sys.modules.update(dict.fromkeys({absent!r})); import {module}; {plain}"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
