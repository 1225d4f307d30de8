"""The Dockerfile copies what there is, installs by hash, and its containers run as nobody in particular."""

import fcntl
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from tests.deploy.tools import ROOT

TEXT = re.sub(r"\\\n\s*", "", (ROOT / "Dockerfile").read_text())
STAGES = {
    name: (parent, body)
    for parent, name, body in re.findall(r"^FROM (\S+) AS (\S+)\n(.*?)(?=^FROM |\Z)", TEXT, re.M | re.S)
}
ROLES = ("serve", "updater", "night")


def lines(stage: str, keyword: str) -> list[str]:
    """The instructions of one kind of a stage and of those that it comes from."""
    parent, body = STAGES[stage]
    before = lines(parent, keyword) if parent in STAGES else []
    return before + re.findall(rf"^{keyword} (.*)$", body, re.M)


def test_there_is_a_target_for_each_role_and_the_base_can_be_pinned():
    assert set(ROLES) <= set(STAGES)
    assert TEXT.index("ARG BASE=") < TEXT.index("FROM ")
    assert STAGES["build"][0] == STAGES["role"][0] == "${BASE}"


@pytest.mark.parametrize("role", ROLES)
def test_a_role_runs_as_10001_under_tini_on_its_own_environment(role: str):
    assert lines(role, "USER")[-1] == "10001:10001"
    assert lines(role, "ENTRYPOINT") == ['["tini", "--", "dat"]']
    made = "night" if role == "night" else f"{role}-env"
    assert [line.split()[0] for line in lines(role, "COPY")] == ([] if made == role else [f"--from={made}"])
    installs = [line for line in lines(made, "RUN") if "uv pip install" in line]
    given = dict(line.split("=") for line in lines(made, "ARG") if line.startswith("LOCK="))
    assert given.get("LOCK") == {"serve": "serve", "updater": "stream", "night": None}[role]
    lock = "${LOCK}" if "LOCK" in given else "night"
    assert any(f"--require-hashes -r requirements/{lock}.lock" in line and "--no-deps" in line for line in installs)


def test_what_is_copied_into_the_build_is_all_that_the_wheel_is_made_of():
    copied = {name for line in re.findall(r"^COPY ([^-].*)$", STAGES["build"][1], re.M) for name in line.split()[:-1]}
    assert all((ROOT / name).exists() for name in copied)
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]["find"]["include"]
    assert {name.rstrip("*") for name in packages} <= copied


def test_what_containers_may_write_is_what_compose_gives_them():
    assert lines("role", "VOLUME") == ["/data"]
    assert "HOME=/tmp" in " ".join(lines("role", "ENV"))


def test_a_build_waits_for_another_one_in_its_folder_and_leaves_its_storage_alone(tmp_path: Path):
    (tmp_path / "storage").mkdir()
    with (tmp_path / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        build = subprocess.Popen([ROOT / "deploy/build_images.sh", tmp_path], stderr=subprocess.PIPE, text=True)
        assert build.stderr is not None
        assert f"another run builds in {tmp_path}: waiting" in build.stderr.readline()
        build.terminate()
        build.wait()
        build.stderr.close()
    assert (tmp_path / "storage").is_dir()
