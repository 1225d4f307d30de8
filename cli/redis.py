"""A Redis server of the local stack, from the ``redis-server`` on the PATH."""

import shutil
import socket
import subprocess
import time
from pathlib import Path


class RedisError(RuntimeError):
    """Redis cannot be started. The message says what to do."""


class LocalRedis:
    """A Redis server on a free loopback port, without persistence: the stream can write everything again."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.process: subprocess.Popen | None = None
        self.port = 0

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def __enter__(self) -> "LocalRedis":
        server = shutil.which("redis-server")
        if not server:
            raise RedisError("--redis needs a redis-server on the PATH; install it, e.g. apt-get install redis-server")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "redis.log").open("wb") as log:
            self.process = subprocess.Popen(
                [server, "--bind", "127.0.0.1", "--port", str(self.port), "--save", "", "--appendonly", "no"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, cwd=self.folder, start_new_session=True,
            )  # fmt: skip
        for _ in range(100):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return self
            time.sleep(0.05)
        self.__exit__()
        raise RedisError(f"redis-server did not start; see {self.folder / 'redis.log'}")

    def __exit__(self, *_: object) -> None:
        if self.process:
            self.process.terminate()
            self.process.wait(10)
