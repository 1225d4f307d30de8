"""Children of the local stack live as long as the process that started them, and no longer."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from devstack.processes import start_child

SLEEP = ["sleep", "60"]
PARENT = """
import subprocess, time
from devstack.processes import start_child
print(start_child(["sleep", "60"], subprocess.DEVNULL).pid, flush=True)
time.sleep(60)
"""


def test_a_child_outlives_the_thread_that_asked_for_it():
    started = []
    thread = threading.Thread(target=lambda: started.append(start_child(SLEEP, subprocess.DEVNULL)))
    thread.start()
    thread.join()
    time.sleep(0.3)
    assert started[0].poll() is None
    started[0].kill()
    started[0].wait()


def test_a_child_does_not_outlive_a_parent_that_was_killed():
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True) as parent:
        child = int(parent.stdout.readline())
        os.kill(child, 0)
        parent.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 60
    while _lives(child) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not _lives(child)


def _lives(pid: int) -> bool:
    """Whether a process is there and is no zombie: whoever is its parent now may not have looked yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
