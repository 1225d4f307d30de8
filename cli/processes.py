"""Child processes of the local stack: started, waited for, and ended by their id."""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path


class ProcessError(RuntimeError):
    """A process of the local stack ended or did not start. The message has its last words."""


def die_with_parent() -> None:
    """In the child, before its program starts: take SIGTERM when the parent is gone, however it went (Linux only)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)


class Verb:
    """``dat <verb> …`` as a child process, its output in a log file.

    Args:
        arguments: The verb and its options.
        log: Where its output goes, and where the line is looked for that says that it is ready.
        ready: That line's first word.
    """

    def __init__(self, arguments: list[str], log: Path, ready: str):
        self.name, self.log, self.ready = arguments[0], log, ready
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as out:
            # A session of its own: Ctrl-C is the parent's to handle, which ends the children in their order.
            self.process = subprocess.Popen(
                [sys.executable, "-m", "cli", *arguments],
                stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
                start_new_session=True, preexec_fn=die_with_parent, env=os.environ | {"PYTHONUNBUFFERED": "1"},
            )  # fmt: skip

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
