"""A fair readers–writer lock: Faiss gives no safety for searching while another thread writes."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class ReadWriteLock:
    """Many readers or one writer; neither can starve the other.

    A reader that comes while a writer holds the lock or waits for it waits for that one writer. When a writer leaves,
    the readers that have waited go before the next writer.

    Not reentrant: a thread that holds it must not take it again.
    """

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._reading = 0
        self._writing = False
        self._writers_waiting = 0
        self._readers_waiting = 0
        self._admitted = 0  # readers that waited for the last writer, and go before the next one

    @contextmanager
    def read(self) -> Iterator[None]:
        with self._condition:
            if self._writing or self._writers_waiting:
                self._readers_waiting += 1
                while not self._admitted and (self._writing or self._writers_waiting):
                    self._condition.wait()
                self._readers_waiting -= 1
                self._admitted = max(0, self._admitted - 1)
            self._reading += 1
        try:
            yield
        finally:
            with self._condition:
                self._reading -= 1
                if not self._reading:
                    self._condition.notify_all()

    @contextmanager
    def write(self) -> Iterator[None]:
        with self._condition:
            self._writers_waiting += 1
            while self._writing or self._reading or self._admitted:
                self._condition.wait()
            self._writers_waiting -= 1
            self._writing = True
        try:
            yield
        finally:
            with self._condition:
                self._writing = False
                self._admitted = self._readers_waiting
                self._condition.notify_all()
