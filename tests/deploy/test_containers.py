"""Images, built without Docker and run as a cluster does: by uid 10001, on a root that they cannot write."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from devstack.chaos.night import EASY
from devstack.ports import free_port
from model.bundle_store import BundleStore
from model.click import Click
from tests.deploy.tools import ROOT
from tests.market import FIRST_MS, write_market
from tests.streaming.loop import eventually, produce
from tests.test_installation import MOST_MB, resident_mb
from tests.tiny import tiny_bundle, tiny_store

GIVEN = os.environ.get("DAT_IMAGES")
"""A folder that ``build_images.sh`` has filled."""
NIGHT = ["night"] if os.environ.get("DAT_TEST_NIGHT_IMAGE") else []
"""The night's image is built where it is asked for: it writes 16 GB, which takes some minutes."""
MISSING = [name for name in ("buildah", "debootstrap") if not GIVEN and not shutil.which(name)]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.server,
    pytest.mark.timeout(3_600),
    pytest.mark.skipif(bool(MISSING), reason=f"not here: apt-get install {' '.join(MISSING)}"),
    pytest.mark.skipif(os.geteuid() != 0, reason="images are built, and their mounts are made, by root"),
]
MOST_IMAGE_MB = {"serve": 800, "updater": 800, "night": 6_000}
"""With Debian's Python, which is larger than that of a slim base. The night's is torch for the most part: PyPI has no
build of it for x86-64 without NVIDIA's libraries, and it does not load without them."""


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder with the root file systems."""
    if GIVEN:
        yield Path(GIVEN)
        return
    folder = tmp_path_factory.mktemp("images")
    try:
        subprocess.run([ROOT / "deploy" / "build_images.sh", folder, "serve", "updater", *NIGHT], check=True)
        yield folder
    finally:
        shutil.rmtree(folder)


class Container:
    """A process of an image: its own mounts and process ids, no rights, this machine's network."""

    def __init__(self, images: Path, target: str, home: Path, command: list[str], log: Path, **settings: str):
        config = json.loads((images / f"{target}.json").read_text())["OCIv1"]["config"]
        uid, gid = config["User"].split(":")
        root = images / target
        inside = [
            "chroot", root, "setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups", "--bounding-set=-all",
            "--inh-caps=-all", "--no-new-privs", "env", "-i", f"--chdir={config['WorkingDir']}", *config["Env"],
            *(f"{name}={value}" for name, value in settings.items()), *config["Entrypoint"][:2], *command,
        ]  # fmt: skip
        script = f"""
            touch {root}/etc/hosts; mount --bind {root} {root}; mount -o remount,bind,ro {root}
            mount --bind /etc/hosts {root}/etc/hosts
            mount --rbind /dev {root}/dev; mount -t proc proc {root}/proc; mount -t tmpfs tmpfs {root}/tmp
            mount --bind {home} {root}/data
            exec {shlex.join(map(str, inside))}"""
        self.log = log
        with log.open("wb") as out:
            self.outside = subprocess.Popen(
                ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-euc", script],
                stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
            )  # fmt: skip

    def child(self, of: int) -> int:
        return int(Path(f"/proc/{of}/task/{of}/children").read_text().split()[0])

    @property
    def pid(self) -> int:
        """Outside, of what has the id 1 inside."""
        return self.child(self.outside.pid)

    @property
    def resident_mb(self) -> int:
        return resident_mb(self.child(self.pid))

    def wait_line(self, first: str) -> str:
        def found() -> list[str]:
            assert self.outside.poll() is None, self.log.read_text()
            return [line for line in self.log.read_text().splitlines() if line.startswith(first)]

        eventually(lambda: bool(found()), f"{first}: {self.log.read_text()}", 120)
        return found()[0]

    def stop(self) -> tuple[int, float]:
        """Exit status after SIGTERM, and the seconds that it took."""
        began = time.monotonic()
        os.kill(self.pid, signal.SIGTERM)
        return self.outside.wait(60), time.monotonic() - began


@contextmanager
def running(*arguments, **settings: str) -> Iterator[Container]:
    container = Container(*arguments, **settings)
    try:
        yield container
    finally:
        container.outside.kill()
        container.outside.wait()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with a tiny bundle that belongs to uid 10001."""
    home = tmp_path / "home"
    tiny_store(home)
    BundleStore(home / "bundles").publish(tiny_bundle())
    return given(home)


def given(home: Path) -> Path:
    """The folder, which now belongs to uid 10001."""
    for path in (home, *home.rglob("*")):
        os.chown(path, 10001, 10001, follow_symlinks=False)
    return home


def _here(images: Path, target: str) -> None:
    if not (images / target).is_dir():
        pytest.skip("the night's image is built with DAT_TEST_NIGHT_IMAGE=1")


@pytest.mark.parametrize("target", MOST_IMAGE_MB)
def test_an_image_is_slim_and_runs_as_nobody_on_a_root_that_it_cannot_write(images: Path, target: str, tmp_path: Path):
    _here(images, target)
    files = [path for path in (images / target).rglob("*") if path.is_file() and not path.is_symlink()]
    size = sum(file.stat().st_size for file in files) >> 20
    print(f"{target}: {size} MB")
    assert size <= MOST_IMAGE_MB[target]
    os.chown(tmp_path, 10001, 10001)
    look = "id -u; cat /proc/1/comm; touch /opt/dat/written 2>&1; touch /data/written && dat $0 --help"
    verb = {"night": "nightly"}.get(target, target)
    with running(images, target, tmp_path, ["sh", "-c", look, verb], tmp_path / "log") as container:
        assert container.outside.wait(60) == 0, container.log.read_text()
    first, second, third, *rest = container.log.read_text().splitlines()
    assert (first, second) == ("10001", "tini") and "Read-only file system" in third
    assert f"Usage: dat {verb}" in "".join(rest)


def test_a_night_lands_trains_and_publishes_in_its_container_and_fetches_nothing(images: Path, kafka, tmp_path: Path):
    _here(images, "night")
    home = tmp_path / "home"
    card = write_market(home)
    landed = [
        Click(event_id=f"k{k}", query_id=f"u{k % 40}", item_id=f"s{k % 90}", event_time=FIRST_MS + 150_000_000 + k)
        for k in range(50)
    ]
    produce(kafka, landed)
    nowhere = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:1")
    command = ["dat", "nightly", "--date", "2023-11-18", "--data", f"/data/{card.name}", "--json", "/data/night.json"]
    with running(
        images, "night", given(home), command, tmp_path / "night.log", **nowhere, DAT_DATA="/data", **EASY,
        DAT_UPDATER__BOOTSTRAP=kafka.bootstrap, DAT_UPDATER__PREFIX=kafka.prefix, DAT_NIGHT__CORES="2",
        DAT_NIGHT__DRIVER_MEMORY="1g",
    ) as night:  # fmt: skip
        assert night.outside.wait(900) == 0, night.log.read_text()
    told = json.loads((home / "night.json").read_text())
    assert told["gate"]["verdict"] == "published"
    bundle = BundleStore(home / "bundles").load()
    assert bundle.version == told["bundle"] and sum(bundle.manifest.offsets.values()) == len(landed)
    assert {path.stat().st_uid for path in home.rglob("*")} == {10001}


def test_service_and_updater_answer_fold_and_end_cleanly_in_their_containers(
    images: Path, home: Path, kafka, tmp_path: Path
):
    port = free_port()
    settings = {"DAT_UPDATER__BOOTSTRAP": kafka.bootstrap, "DAT_UPDATER__PREFIX": kafka.prefix}
    serve = ["dat", "serve", "--port", "0", "--clock", "data"]
    with (
        running(
            images, "updater", home, ["dat", "updater"], tmp_path / "updater.log", **settings,
            DAT_UPDATER__METRICS_HOST="127.0.0.1", DAT_UPDATER__METRICS_PORT=str(port),
        ) as updater,
        running(images, "serve", home, serve, tmp_path / "serve.log", **settings) as service,
    ):  # fmt: skip
        updater.wait_line("updating")
        url = next(word for word in service.wait_line("serving").split() if word.startswith("http://"))
        with httpx.Client(timeout=30) as client:
            eventually(lambda: client.get(f"{url}/readyz").is_success, "the service is ready", 60)
            eventually(lambda: client.get(f"http://127.0.0.1:{port}/readyz").is_success, "the updater is ready", 60)
            assert client.get(f"{url}/healthz").is_success
            ask = {"query_id": "q1", "n": 5}
            before = client.get(f"{url}/v1/retrieve", params=ask).raise_for_status().json()
            click = {"query_id": "q1", "item_id": before["items"][0]["item_id"], "event_time": 1_700_000_001_000}
            token = client.post(f"{url}/v1/clicks", json=click).raise_for_status().json()["token"]
            after = client.get(f"{url}/v1/retrieve", params=ask | {"wait_for": token}).raise_for_status().json()
            assert after["items"] != before["items"]
        memory = {"serve": service.resident_mb, "updater": updater.resident_mb}
        ended = {"serve": service.stop(), "updater": updater.stop()}
        print(f"resident MB: {memory}; status and seconds after SIGTERM: {ended}")
        assert max(memory.values()) <= MOST_MB
        assert [status for status, _ in ended.values()] == [0, 0]
        assert max(seconds for _, seconds in ended.values()) <= 20
