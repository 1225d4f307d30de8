"""The blocks of the documents that are marked ``<!-- runnable -->``: a reader can run them as they are printed.

``tests/test_docs.py`` reads their cards and settings, ``tests/serving/test_documents.py`` runs what asks a service, and
``tests/cli/test_documents.py`` all others.
"""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from docs.tables import DOCUMENTS, ROOT

PAGES = [*DOCUMENTS, *sorted((ROOT / "clients").glob("*/README.md"))]
SERVICE = "http://127.0.0.1:8000"
_MARK = "<!-- runnable"
_BLOCK = re.compile(rf"^( *){_MARK} -->\n+\1```(bash|json|python|toml|ts)\n(.*?)^\1```$", re.M | re.S)


@dataclass(frozen=True)
class Block:
    """A fenced block: its language and its code, as printed."""

    language: str
    code: str

    @property
    def is_card(self) -> bool:
        return self.language == "toml" and "[clicks]" in self.code

    @property
    def asks_the_service(self) -> bool:
        return self.language == "json" or SERVICE in self.code


def blocks(page: Path) -> list[Block]:
    """The marked blocks of a page, in its order."""
    text = page.read_text()
    found = [
        Block(language, re.sub(rf"^{indent}", "", code, flags=re.M)) for indent, language, code in _BLOCK.findall(text)
    ]
    assert len(found) == len(re.findall(rf"^ *{_MARK}", text, re.M)), (
        f"{page}: a mark without a block below it in a language that tests run"
    )
    return found


def by_page(wanted: Callable[[Block], bool]) -> dict[str, list[Block]]:
    """The marked blocks of each page that are wanted, by the page's path."""
    found = {str(page.relative_to(ROOT)): [block for block in blocks(page) if wanted(block)] for page in PAGES}
    return {page: those for page, those in found.items() if those}


def reader(folder: Path) -> dict[str, str]:
    """The environment of a reader who works in a folder: ``./dat`` and both clients are there."""
    (folder / "dat").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m cli "$@"\n')
    (folder / "dat").chmod(0o755)
    (folder / "node_modules").mkdir()
    (folder / "node_modules" / "dat-client").symlink_to(ROOT / "clients" / "typescript")
    (folder / ".curlrc").write_text("fail\nshow-error\n")
    ours = {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "clients" / "python")]), "CURL_HOME": str(folder)}
    return os.environ | ours


def command(block: Block, folder: Path) -> list[str]:
    """What runs a block; its code is written to the folder."""
    name, *run = {
        "bash": ("block.sh", "bash", "-euo", "pipefail"),
        "python": ("block.py", sys.executable, "-W", "ignore"),
        "ts": ("block.mjs", "node"),
    }[block.language]
    (folder / name).write_text(block.code)
    return [*run, name]


def run(block: Block, folder: Path, environment: dict[str, str]) -> str:
    """Run a block to its end, and return its output."""
    done = subprocess.run(
        command(block, folder), cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, f"{block.code}\n{done.stdout}{done.stderr}"
    return done.stdout
