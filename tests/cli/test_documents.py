"""The commands of the documents, typed as they are printed by a reader with a small shop's files."""

import os
import re
import signal
import subprocess
import time
from pathlib import Path

import httpx
import pytest

from tests.runnable import Block, by_page, command, reader
from tests.shop import write_shop

PAGES = by_page(lambda block: block.language != "toml" and not block.asks_the_service)
ONCE = {tuple(blocks): page for page, blocks in reversed(PAGES.items())}
"""Pages whose commands are the same, to the letter, are one."""
SERVES = re.compile(r"\./dat serve\b")


@pytest.mark.slow
@pytest.mark.server
@pytest.mark.trains
@pytest.mark.parametrize("page", ONCE.values())
def test_the_runnable_commands_of_a_page_work_one_after_the_other(page: str, tmp_path: Path):
    """What serves is the last command of its block: the request that it prints is answered, and Ctrl-C ends it."""
    write_shop(tmp_path)
    environment = reader(tmp_path) | {"DAT_UPDATER__BOOTSTRAP": "127.0.0.1:1", "DAT_SERVING__DRAIN_S": "0"}
    for block in PAGES[page]:
        served = SERVES.search(block.code)
        typed = Block(block.language, SERVES.sub(r"\g<0> --port 0", block.code))
        log = tmp_path / "said.txt"
        with log.open("w") as out:
            running = subprocess.Popen(
                command(typed, tmp_path), cwd=tmp_path, env=environment, stdin=subprocess.DEVNULL, stdout=out,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        try:
            if served:
                ask_as_printed(running, log)
                os.killpg(running.pid, signal.SIGINT)
            status = running.wait(500)
        finally:
            if running.poll() is None:
                os.killpg(running.pid, signal.SIGKILL)
        assert status in ((0, 130, -signal.SIGINT) if served else (0,)), log.read_text()


def ask_as_printed(running: "subprocess.Popen[bytes]", log: Path) -> None:
    while not (printed := re.search(r"curl '(http.*?)'", log.read_text())):
        assert running.poll() is None, log.read_text()
        time.sleep(0.2)
    answer = httpx.get(printed[1], timeout=30)
    assert answer.status_code == 200 and answer.json()["items"], log.read_text()
