"""What a person gets wrong ends in one clear sentence and a status that is not 0; never in a traceback."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.market import write_market


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cli", *arguments]
    return subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False)


def sentence(done: subprocess.CompletedProcess[str]) -> str:
    """The one line that the command ended with."""
    assert done.returncode not in (0, -9), done.stdout
    assert "Traceback" not in done.stderr + done.stdout
    lines = [line for line in done.stderr.splitlines() if line.startswith("dat: ")]
    assert len(lines) == 1, done.stderr
    return lines[0]


def test_no_java(tmp_path: Path):
    card = write_market(tmp_path)
    python_only = tmp_path / "bin"
    python_only.mkdir()
    done = run(
        "nightly", "--no-kafka", "--data", str(card), "--home", str(tmp_path / "home"),
        PATH=str(python_only), JAVA_HOME="", DAT_DATA=str(tmp_path),
    )  # fmt: skip
    assert "install a Java 17 runtime, e.g. apt-get install" in sentence(done)


def test_a_port_in_use(tmp_path: Path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = run("demo", "--once", "--home", str(tmp_path / "home"), "--port", str(port))
        assert f"port {port} is in use" in sentence(done)


def test_a_dataset_folder_that_is_not_there(tmp_path: Path):
    card = write_market(tmp_path)
    done = run(
        "nightly", "--no-kafka", "--data", str(card), "--home", str(tmp_path / "home"), DAT_DATA=str(tmp_path / "no")
    )
    assert "the data of 'market' is not at" in sentence(done) and "DAT_DATA" in sentence(done)


def test_a_dataset_that_lacks_a_column(tmp_path: Path):
    card = write_market(tmp_path)
    users = tmp_path / "market" / "users.csv"
    users.write_text(users.read_text().replace("city", "town", 1))
    done = run("nightly", "--no-kafka", "--data", str(card), "--home", str(tmp_path / "home"), DAT_DATA=str(tmp_path))
    assert "users.csv lacks the column city; it has: user, town, age" in sentence(done)


def test_a_dataset_nobody_knows():
    assert "no dataset card 'movielens-1b'. Known:" in sentence(run("nightly", "--data", "movielens-1b"))


def test_a_setting_that_is_not_valid():
    assert "night.negatives" in sentence(run("nightly", DAT_NIGHT__NEGATIVES="0"))


def test_a_range_of_dates_that_is_none():
    for dates in (("--from", "2023-11-19", "--to", "2023-11-18"), ("--from", "2023-11-19"), ("--date", "19.11.2023")):
        done = run("nightly", *dates, COLUMNS="200")
        assert done.returncode == 2 and "Traceback" not in done.stderr
        assert any(why in done.stderr for why in ("is before", "needs both --from and --to", "write YYYY-MM-DD"))


def test_no_bundle_yet(tmp_path: Path):
    done = run("serve", "--home", str(tmp_path), "--port", "0")
    assert "no bundle is published" in sentence(done) and "dat nightly" in sentence(done)


def test_a_home_of_another_dataset(tmp_path: Path):
    card = write_market(tmp_path)
    home = tmp_path / "home"
    home.mkdir()
    (home / "dataset").write_text("globo-news")
    done = run("nightly", "--no-kafka", "--data", str(card), "--home", str(home), DAT_DATA=str(tmp_path))
    assert "holds the dataset globo-news, not market" in sentence(done)


def test_the_demo_does_not_empty_a_folder_that_is_not_its_own(tmp_path: Path):
    (tmp_path / "precious").write_text("data")
    done = run("demo", "--once", "--home", str(tmp_path))
    assert "is not an earlier demo's home" in sentence(done)
    assert (tmp_path / "precious").read_text() == "data"


@pytest.fixture
def tiny_disk(tmp_path: Path):
    """A file system of 8 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting a small file system needs root")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk(tiny_disk: Path):
    done = run("demo", "--once", "--home", str(tiny_disk / "home"), "--port", "0")
    assert "MB free and 500 MB are needed" in sentence(done)


def test_an_error_that_a_library_makes_of_ctrl_c_ends_like_ctrl_c():
    program = """
import os, signal, cli.main

def verb(prog_name):
    try:
        os.kill(os.getpid(), signal.SIGINT)
    except KeyboardInterrupt:
        raise ConnectionError("the other side is gone") from None

cli.main.build = lambda: verb
cli.main.main()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 130
    assert done.stderr.strip() == "stopped"
