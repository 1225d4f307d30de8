"""A file, a folder or a link is written whole or not at all."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from feature_repo.atomic import atomic_write


def write(final: Path, kind: str, text: str) -> None:
    with atomic_write(final) as staging:
        if kind == "file":
            staging.write_text(text)
        elif kind == "folder":
            (staging / "deep").mkdir(parents=True)
            (staging / "deep" / "part").write_text(text)
        else:
            staging.symlink_to(text)


def read(final: Path, kind: str) -> str:
    if kind == "link":
        return str(final.readlink())
    return (final if kind == "file" else final / "deep" / "part").read_text()


@pytest.mark.parametrize("kind", ["file", "folder", "link"])
def test_it_takes_the_place_of_what_was_there_and_an_error_leaves_that(tmp_path: Path, kind: str):
    final = tmp_path / "new" / "thing"
    write(final, kind, "first")
    write(final, kind, "second")
    assert read(final, kind) == "second"
    with pytest.raises(OSError, match="went away"), atomic_write(final) as staging:
        staging.write_text("ha")
        raise OSError("the disk went away")
    assert read(final, kind) == "second"
    assert list(final.parent.iterdir()) == [final]


def test_what_a_killed_process_left_beside_goes_and_what_another_one_writes_stays(tmp_path: Path):
    final = tmp_path / "thing"
    program = f"""
import os, signal
from pathlib import Path
from feature_repo.atomic import atomic_write
with atomic_write(Path({str(final)!r})) as staging:
    staging.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    killed = subprocess.run([sys.executable, "-c", program], check=False)
    assert killed.returncode == -signal.SIGKILL and len(list(tmp_path.iterdir())) == 1
    other = tmp_path / f".thing.{os.getppid()}.writing"
    other.write_text("at work")
    write(final, "file", "whole")
    assert {path.name for path in tmp_path.iterdir()} == {"thing", other.name}


def test_what_is_written_is_on_the_disk_before_it_takes_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    synced: list[str] = []
    fsync = os.fsync

    def note(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    write(tmp_path / "thing", "folder", "text")
    staging = f".thing.{os.getpid()}.writing"
    assert synced == ["part", "deep", staging, tmp_path.name]
