"""Watching the shelf: when another bundle is put into service, it is brought up to now beside the one that serves, and
takes its place in one step.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from serving.follower import Follower
from serving.served import Served
from training.bundle import Bundle, BundleError, Shelf

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Running:
    """A bundle as it is served, and the follower that keeps its items up to the stream."""

    served: Served
    follower: Follower


class BundleWatch:
    """A thread that follows the shelf's ``current`` link. Publishing and rolling back look alike to it.

    Args:
        current: What serves now.
        prepare: Loads all that serving a bundle needs, its follower started; may refuse with an exception.
        swap: Puts it in place of what serves; one assignment.
        patience_s: How long the new bundle may take to know what the old one knows. If no updater runs for it, it never
            will, and is served as of its cut: the operator has chosen it.
    """

    def __init__(
        self,
        shelf: Shelf,
        current: Callable[[], Running],
        prepare: Callable[[Bundle], Running],
        swap: Callable[[Running], None],
        poll_s: float,
        patience_s: float,
    ):
        self._shelf, self._current, self._prepare, self._swap = shelf, current, prepare, swap
        self._poll_s, self._patience_s = poll_s, patience_s
        self.preparing: str | None = None  # the version that is being brought up
        self.refused: dict[str, str] = {}  # version → why it is not served
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="bundle-watch", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self._poll_s):
            version = self._shelf.current()
            if version is None or version == self._current().served.version or version in self.refused:
                continue
            self.preparing = version
            try:
                self._bring_up(version)
            except Exception as error:  # a bundle that cannot be served must not take down the one that is
                self.refused[version] = str(error)
                log.error("bundle %s is not served, the old one stays: %s", version, error)
            finally:
                self.preparing = None

    def _bring_up(self, version: str) -> None:
        try:
            bundle = self._shelf.load(version)
        except BundleError:
            if self._shelf.current() != version:
                return  # it was taken back, or pruned, meanwhile
            raise
        running = self._prepare(bundle)
        deadline = time.monotonic() + self._patience_s
        while not self._as_fresh(running) and time.monotonic() < deadline:
            if self._stop.wait(0.1) or self._shelf.current() != version:
                running.follower.close()
                return
        old = self._current()
        self._swap(running)
        old.follower.close()
        log.warning("bundle %s is in service in place of %s", version, old.served.version)

    def _as_fresh(self, running: Running) -> bool:
        """Whether the new bundle's items have seen every click that the old one's have."""
        newest = self._current().served.corpus.newest_event
        return running.follower.caught_up and running.served.corpus.newest_event >= newest
