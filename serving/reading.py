"""A thread that reads a topic from its beginning, and begins again where Kafka fails."""

import logging
import threading

from kafka.errors import KafkaError

log = logging.getLogger(__name__)


class Reading:
    """Runs :meth:`read` in a thread until it is closed; a reader of a topic fills that in.

    What is read must be absolute values: after a failure all of it is read again, to no effect.

    Args:
        what: What is being read, for the log. The thread starts at once: set what ``read`` needs before.
    """

    def __init__(self, what: str):
        self.error: str | None = None
        """Why nothing is read at present; ``read`` clears it."""
        self._what = what
        self._caught_up = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=what, daemon=True)
        self._thread.start()

    def read(self) -> None:
        """Read until ``_stop`` is set; set ``_caught_up`` once all has been read that was there at first."""
        raise NotImplementedError

    @property
    def caught_up(self) -> bool:
        """Whether everything that was on the topic when it was first looked at has been read."""
        return self._caught_up.is_set()

    def wait_caught_up(self, timeout_s: float) -> bool:
        return self._caught_up.wait(timeout_s)

    def close(self) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self.read()
            except (KafkaError, TimeoutError) as error:  # no broker, or it is gone, or has not made the topic yet
                self.error = f"{type(error).__name__}: {error}"
                log.warning("%s cannot be read, trying again: %s", self._what, self.error)
                self._stop.wait(1)
