"""Several processes behind one port. What was loaded before they part is shared until one of them writes to it."""

import logging
import os
import signal
import time
from collections.abc import Callable

log = logging.getLogger(__name__)


def run_workers(count: int, work: Callable[[], None]) -> None:
    """Run ``work`` in so many child processes until told to stop; one that dies is replaced.

    To be called before any thread is started.
    """
    children: set[int] = set()
    stopping = False

    def stop(number: int, _: object) -> None:
        nonlocal stopping
        stopping = True
        for child in children:
            os.kill(child, number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    while True:
        while not stopping and len(children) < count:
            children.add(_fork(work))
        if not children:
            return
        try:
            child, status = os.wait()
        except InterruptedError:
            continue
        children.discard(child)
        if not stopping:
            log.error("worker %d has ended with status %d; another takes its place", child, status)
            time.sleep(1)


def _fork(work: Callable[[], None]) -> int:
    child = os.fork()
    if child:
        return child
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    status = 1
    try:
        work()
        status = 0
    except KeyboardInterrupt:
        status = 130
    finally:
        os._exit(status)
