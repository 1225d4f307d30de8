"""What a person gets wrong ends in one clear sentence and a status that is not 0; never in a traceback."""

import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, nullcontext
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest
import torch
from pyspark.errors import PySparkException

from cli.main import explain
from devstack.ports import free_port
from feature_repo.object_store import ObjectStore
from feature_repo.place import UrlPath, write_parquet
from feature_repo.table import dataset
from tests.cli.conftest import Run
from tests.market import write_market
from tests.objects import Bucket
from tests.objects import bucket as bucket
from training import checkpoint as checkpoint_module


def test_no_java(run: Run, tmp_path: Path):
    card = write_market(tmp_path)
    python_only = tmp_path / "bin"
    python_only.mkdir()
    said = run(
        "nightly", "--no-kafka", "--data", card, "--home", tmp_path / "home",
        PATH=str(python_only), JAVA_HOME="", DAT_DATA=str(tmp_path),
    ).sentence  # fmt: skip
    assert "install a Java 17 runtime, e.g. apt-get install" in said


def test_a_port_in_use(run: Run, tmp_path: Path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert f"port {port} is in use" in run("demo", "--once", "--home", tmp_path / "home", "--port", port).sentence
        serve = run("serve", "--home", tmp_path, "--port", port)
        assert serve.status == 2 and f"cannot listen on 127.0.0.1:{port}" in serve.sentence


def test_no_kafka(run: Run, tmp_path: Path):
    said = run(
        "dead-letters", "--home", tmp_path, "--bootstrap", f"127.0.0.1:{free_port()}",
        DAT_UPDATER__CONNECT_TIMEOUT_MS="500",
    ).sentence  # fmt: skip
    assert "Kafka does not answer" in said


def test_a_verb_that_needs_more_than_the_day_has_installed():
    said = explain(ModuleNotFoundError("No module named 'pyspark.sql'", name="pyspark.sql"))
    assert said and "pyspark.sql is not installed here" in said
    assert explain(ModuleNotFoundError("No module named 'model.gone'", name="model.gone")) is None


def test_a_full_disk_becomes_a_sentence_whichever_library_meets_it(tmp_path: Path, monkeypatch):
    def checkpoint() -> None:
        monkeypatch.setattr("training.checkpoint.atomic_write", lambda _: nullcontext(Path("/dev/full")))
        checkpoint_module.save(tmp_path / "epoch", {"weights": torch.zeros(1_000_000)})

    def sqlite() -> None:
        with closing(sqlite3.connect(tmp_path / "rows.db")) as rows:
            rows.execute("pragma max_page_count = 2")
            rows.execute("create table rows (a)")
            rows.execute("insert into rows values (zeroblob(100000))")

    def arrow() -> None:
        pa.OSFile("/dev/full", "wb").write(b"rows" * 10_000)

    for write in (checkpoint, sqlite, arrow):
        with pytest.raises(Exception) as full:  # noqa: PT011 -- each library has its own
            write()
        assert explain(full.value) == "the disk is full: free some space or give another folder with --home"


@pytest.mark.long
def test_an_interrupt_that_python_drops_stops_the_verb_all_the_same():
    verb = """
import os, signal, time
from cli import main

class Garbage:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)

def verb(prog_name):
    Garbage()
    time.sleep(60)

main.build = lambda: verb
main.main()
"""
    ended = subprocess.run([sys.executable, "-c", verb], capture_output=True, text=True, timeout=30, check=False)
    assert (ended.returncode, ended.stderr.strip()) == (130, "stopped")


def test_an_interrupt_while_the_imports_run_ends_without_a_traceback():
    verb = """
import os, signal, sys
from cli.__main__ import main

class Slow:
    def find_spec(self, name, path, target=None):
        if name == "typer":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Slow())
main()
"""
    ended = subprocess.run([sys.executable, "-c", verb], capture_output=True, text=True, timeout=30, check=False)
    assert (ended.returncode, ended.stderr) == (-signal.SIGINT, "")


@pytest.mark.server
def test_what_duckdb_says_of_an_object_store_becomes_a_sentence(bucket: Bucket):
    place = UrlPath(ObjectStore(bucket.url, attempts=1), "rows.parquet")
    write_parquet(pa.table({"a": range(1_000)}), place)
    rows = dataset([place])
    bucket.stop()
    with duckdb.connect() as sql, pytest.raises(duckdb.Error) as scan:
        sql.register("rows", rows)
        sql.sql("select sum(a) from rows").fetchall()
    bucket.start()
    said = explain(scan.value)
    assert said and said.startswith("the object store does not answer: ")
    assert explain(duckdb.CatalogException("Catalog Error: no table")) is None


def test_what_spark_says_of_an_object_store_becomes_a_sentence(run: Run, monkeypatch):
    refused = "getFileStatus on s3a://b/dat: software.amazon.awssdk.services.s3.model.S3Exception (Status Code: 403)"
    said = explain(PySparkException(f"An error occurred while calling o1.load.\n: {refused}\n\tat java.base"))
    assert said == f"the object store refuses us: look at the credentials and their rights: {refused}"

    def connect() -> None:
        raise PySparkException("fs.s3a.AWSClientIOException: Connect to shop [/127.0.0.1] failed")

    monkeypatch.setattr("cli.main.build", lambda: lambda prog_name: connect())
    assert run("bundles").sentence.endswith("Connect to shop [/127.0.0.1] failed")


def test_a_result_is_not_written_into_a_folder_called_s3(run: Run, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for verb in (("nightly", "--json", "s3://bucket/night.json"), ("data", "init", "log.csv", "--out", "s3://b/card")):
        ended = run(*verb, COLUMNS="200")
        assert ended.status == 2 and "is no folder or file here: mount that storage" in ended.errors
    assert not list(tmp_path.iterdir())


def test_a_dataset_folder_that_is_not_there(run: Run, tmp_path: Path):
    card = write_market(tmp_path)
    (tmp_path / "market").rename(tmp_path / "elsewhere")
    home, nowhere = tmp_path / "home", str(tmp_path / "no")
    said = run("nightly", "--no-kafka", "--data", card, "--home", home, DAT_DATA=nowhere).sentence
    assert "the data of 'market' is neither beside the card nor at" in said and "DAT_DATA" in said


def test_a_dataset_nobody_knows(run: Run):
    assert "no dataset card 'movielens-1b'. Known:" in run("nightly", "--data", "movielens-1b").sentence
    assert run("nightly", "--data", "shp.toml").sentence == "there is no shp.toml, which should be a dataset card"


def test_a_setting_that_is_not_valid(run: Run):
    assert "night.negatives" in run("nightly", DAT_NIGHT__NEGATIVES="0").sentence


def test_a_range_of_dates_that_is_none(run: Run):
    for dates in (("--from", "2023-11-19", "--to", "2023-11-18"), ("--from", "2023-11-19"), ("--date", "19.11.2023")):
        ended = run("nightly", *dates, COLUMNS="200")
        assert ended.status == 2
        assert any(why in ended.errors for why in ("is before", "needs both --from and --to", "write YYYY-MM-DD"))


def test_a_home_of_another_dataset(run: Run, tmp_path: Path):
    card = write_market(tmp_path)
    home = tmp_path / "home"
    home.mkdir()
    (home / "dataset").write_text("globo-news")
    said = run("nightly", "--no-kafka", "--data", card, "--home", home, DAT_DATA=str(tmp_path)).sentence
    assert "holds the dataset globo-news, not market" in said


def test_the_demo_does_not_empty_a_folder_that_is_not_its_own(run: Run, tmp_path: Path):
    (tmp_path / "precious").write_text("data")
    assert "is not an earlier demo's home" in run("demo", "--once", "--home", tmp_path).sentence
    assert (tmp_path / "precious").read_text() == "data"


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
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


def test_a_full_disk(run: Run, tiny_disk: Path):
    assert (
        "MB free and 500 MB are needed" in run("demo", "--once", "--home", tiny_disk / "home", "--port", "0").sentence
    )


@pytest.mark.long
@pytest.mark.parametrize(
    ("verb", "said", "remedy"),
    [
        (["serve", "--port", "0"], "no bundle is published", "dat nightly"),
        pytest.param(
            ["nightly", "--bootstrap", "127.0.0.1:1"],
            "Kafka at 127.0.0.1:1 does not answer",
            "--no-kafka",
            marks=pytest.mark.skipif(shutil.which("java") is None, reason="needs Java"),
        ),
    ],
)
def test_what_is_missing_is_said_before_what_takes_seconds_is_loaded(
    verb: list[str], said: str, remedy: str, tmp_path: Path
):
    program = f"""
import sys
sys.argv = ["dat", *{verb!r}, "--home", {str(tmp_path)!r}]
import cli.main
try:
    cli.main.main()
finally:
    print([name for name in ("torch", "feast", "faiss", "pyspark") if sys.modules.get(name)])
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False,
        env=os.environ | {"DAT_UPDATER__CONNECT_TIMEOUT_MS": "500"},
    )  # fmt: skip
    assert said in done.stderr and remedy in done.stderr
    assert done.returncode == 1 and done.stdout.strip() == "[]"


@pytest.mark.long
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
