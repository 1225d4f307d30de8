"""Watching the bundle store: when another bundle is put into service, it is brought up to now beside the one that
serves, and takes its place in one step.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from model.bundle import Bundle, BundleError
from model.bundle_store import BundleStore
from serving.background import Background
from serving.item_vector_consumer import ItemVectorConsumer
from serving.snapshot import Snapshot

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Running:
    """A bundle as it is served, and the consumer that keeps its items up to the stream."""

    snapshot: Snapshot
    consumer: ItemVectorConsumer


class BundleWatcher(Background):
    """A thread that follows the store's ``current`` link. Publishing and rolling back look alike to it.

    Args:
        current: What serves now.
        prepare: Loads all that serving a bundle needs, its consumer started; may refuse with an exception.
        swap: Puts it in place of what serves; one assignment.
        patience_s: How long the new bundle may take to know what the old one knows. If no updater runs for it, it never
            will, and is served as of its cut: the operator has chosen it.
    """

    def __init__(
        self,
        store: BundleStore,
        current: Callable[[], Running],
        prepare: Callable[[Bundle], Running],
        swap: Callable[[Running], None],
        poll_s: float,
        patience_s: float,
    ):
        super().__init__("bundle-watch")
        self._store, self._current, self._prepare, self._swap = store, current, prepare, swap
        self._poll_s, self._patience_s = poll_s, patience_s
        self.preparing: str | None = None  # the version that is being brought up
        self.refused: dict[str, str] = {}  # version → why it is not served

    def run(self) -> None:
        while not self._stop.wait(self._poll_s):
            version = self._store.current()
            self.worked()
            if version is None or version == self._current().snapshot.version or version in self.refused:
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
            bundle = self._store.load(version)
        except BundleError:
            if self._store.current() != version:
                return  # it was taken back, or pruned, meanwhile
            raise
        running = self._prepare(bundle)
        deadline = time.monotonic() + self._patience_s
        while not self._as_fresh(running) and time.monotonic() < deadline:
            if self._stop.wait(0.1) or self._store.current() != version:
                running.consumer.close()
                return
        old = self._current()
        self._swap(running)
        old.consumer.close()
        log.warning("bundle %s is in service in place of %s", version, old.snapshot.version)

    def _as_fresh(self, running: Running) -> bool:
        """Whether the new bundle's items have seen every click that the old one's have."""
        newest = self._current().snapshot.corpus.newest_event
        return running.consumer.caught_up and running.snapshot.corpus.newest_event >= newest
