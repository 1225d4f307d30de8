"""Threads that outlive their errors."""

import logging
import threading
import time

from serving.metrics import THREAD_FAILURES

log = logging.getLogger(__name__)
_PAUSE_S, _BROKEN_S = 1.0, 60.0


class Background:
    """Runs :meth:`run` in a thread until it is closed. What goes wrong in it is counted, logged, and tried again;
    what is outside and stays wrong is logged once.

    Args:
        what: What it does, for the log. The thread starts with :meth:`start`.
    """

    def __init__(self, what: str):
        self.what = what
        self.error: str | None = None
        """Why it does not work at present; ``run`` clears it where it gets on."""
        self.failures = 0
        self._failing_since: float | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._supervised, name=what, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def run(self) -> None:
        """Work until ``_stop`` is set."""
        raise NotImplementedError

    def worked(self) -> None:
        """To be called where ``run`` gets on: what was wrong is over."""
        self.error = self._failing_since = None

    @property
    def broken(self) -> str | None:
        """Why the process should be replaced: the thread is gone, or nothing but errors have come for a minute."""
        if self._stop.is_set():
            return None
        if not self._thread.is_alive():
            return f"{self.what}: the thread has ended"
        if self._failing_since is not None and time.monotonic() - self._failing_since > _BROKEN_S:
            return f"{self.what}: {self.error}"
        return None

    def close(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(10)

    def expected(self, error: Exception) -> bool:
        """Whether an error is of what is outside, such as a broker that is away: then the process need not go."""
        return False

    def _supervised(self) -> None:
        while not self._stop.is_set():
            try:
                self.run()
            except Exception as error:
                self.failures += 1
                THREAD_FAILURES.labels(self.what).inc()
                before, name = self.error, type(error).__name__
                self.error = f"{name}: {str(error).removeprefix(f'{name}: ')}"
                if self.expected(error):
                    if self.error != before:  # a broker may be away for hours
                        log.warning("%s: trying again: %s", self.what, self.error)
                else:
                    self._failing_since = self._failing_since or time.monotonic()
                    log.exception("%s: trying again", self.what)
                self._stop.wait(_PAUSE_S)
