"""Child processes of the local stack: started, waited for, and ended by their id."""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any


class ProcessError(RuntimeError):
    """A process of the local stack ended or did not start. The message has its last words."""


# Linux tells children of the end of the *thread* that started them; this one ends with the process.
_STARTER = ThreadPoolExecutor(1, "starts-children")


def start_child(command: Sequence[str | Path], output: IO[bytes] | int, **options: Any) -> subprocess.Popen:
    """A process that takes SIGTERM when this one is gone, however it went (Linux only).

    It has a session of its own: Ctrl-C is the parent's to handle, which ends the children in their order.

    Args:
        output: Where its output and its errors go.
        options: Of ``subprocess.Popen``, such as ``env``.
    """
    options |= {"stdin": subprocess.DEVNULL, "stdout": output, "stderr": subprocess.STDOUT, "start_new_session": True}
    return _STARTER.submit(lambda: subprocess.Popen(command, preexec_fn=_die_with_parent, **options)).result()


def _die_with_parent() -> None:
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)


# Nobody spreads requests over local services: they need not wait for that when they end.
_LOCAL = {"PYTHONUNBUFFERED": "1", "DAT_SERVING__DRAIN_S": "0"}


class Verb:
    """``dat <verb> …`` as a child process, its output in a log file.

    Args:
        arguments: The verb and its options.
        log: Where its output goes, and where the line is looked for that says that it is ready.
        ready: That line's first word.
        settings: Of the environment, such as ``DAT_SERVING__API_KEY``.
    """

    def __init__(self, arguments: list[str], log: Path, ready: str, **settings: str):
        self.name, self.log, self.ready = arguments[0], log, ready
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as out:
            command = [sys.executable, "-m", "cli", *arguments]
            self.process = start_child(command, out, env=_LOCAL | os.environ | settings)

    def __enter__(self) -> "Verb":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def wait_ready(self, timeout_s: float = 120) -> str:
        """The ready line.

        Raises:
            ProcessError: it ended first, or took too long.
        """
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            self.check()
            for line in self.log.read_text(errors="replace").splitlines():
                if line.startswith(self.ready):
                    return line
            time.sleep(0.05)
        raise ProcessError(f"dat {self.name} was not ready after {timeout_s:.0f} s; see {self.log}")

    def check(self) -> None:
        """Raise if the process has ended.

        Raises:
            ProcessError: with the last line that it wrote.
        """
        if self.process.poll() is not None:
            lines = self.log.read_text(errors="replace").strip().splitlines()
            how = f"status {self.process.returncode}"
            raise ProcessError(f"dat {self.name} ended ({how}): {lines[-1] if lines else 'no word'} (see {self.log})")

    def stop(self, timeout_s: float = 15) -> None:
        """Ask it to end; kill it if it does not in time."""
        if self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.process.wait()
