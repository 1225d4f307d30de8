"""A Redis server of the local stack, from the ``redis-server`` on the PATH."""

import shutil
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from devstack.ports import free_port
from devstack.processes import start_child


class RedisError(RuntimeError):
    """Redis cannot be started. The message says what to do."""


class LocalRedis:
    """A Redis server on a free loopback port, without persistence: the stream can write everything again.

    Args:
        keep: Keep the data over a stop and a start, on disk.
        cluster: Run as a cluster of one node, which owns all slots.
        options: Further ones of ``redis-server``.
    """

    def __init__(self, folder: Path, keep: bool = False, cluster: bool = False, options: Sequence[str] = ()):
        self.folder, self.keep, self.cluster, self.options = folder, keep, cluster, list(options)
        self.process: subprocess.Popen | None = None
        self.port = 0

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def __enter__(self) -> "LocalRedis":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start, on the same port as before, and wait until it answers.

        Raises:
            RedisError: it does not, or is not installed.
        """
        server = shutil.which("redis-server")
        if not server:
            raise RedisError("--redis needs a redis-server on the PATH; install it, e.g. apt-get install redis-server")
        self.port = self.port or free_port()
        self.folder.mkdir(parents=True, exist_ok=True)
        options = ["--bind", "127.0.0.1", "--port", str(self.port), "--save", ""]
        options += ["--appendonly", "yes" if self.keep else "no"]
        if self.cluster:
            options += ["--cluster-enabled", "yes", "--cluster-port", str(free_port())]
        options = [*self.options, *options]
        with (self.folder / "redis.log").open("wb") as log:
            self.process = start_child([server, *options], log, cwd=self.folder)
        if not self._answers():
            self.stop()
            raise RedisError(f"redis-server did not start; see {self.folder / 'redis.log'}")
        if self.cluster:
            _own_all_slots(self.port)

    def stop(self) -> None:
        """Ask it to end, and wait until it has."""
        if self.process:
            self.process.terminate()
            self.process.wait(10)
            self.process = None

    def _answers(self) -> bool:
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return True
            time.sleep(0.05)
        return False


def _own_all_slots(port: int) -> None:
    import redis

    with redis.Redis(port=port) as node:
        if node.cluster("INFO")["cluster_slots_assigned"] == "0":
            node.execute_command("CLUSTER ADDSLOTSRANGE", 0, 16383)
        while node.cluster("INFO")["cluster_state"] != "ok":
            time.sleep(0.05)
