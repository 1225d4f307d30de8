"""A thread that brings a home to the bundle that is in service in an object store, beside a process that works."""

import logging
import threading

from feature_repo.object_store import StoreAway
from model.bundle import BundleError
from model.shared_bundles import SharedBundles

log = logging.getLogger(__name__)
_PATIENCE_S = 60.0


class BundleFollower:
    """Calls :meth:`SharedBundles.take` again and again. Whoever watches the home's own bundles sees the link change.

    While the store is away, or has what cannot be used, the home keeps what it has; the pauses grow to a minute.

    Args:
        every_s: How often the store is asked. Each time is two small requests.
    """

    def __init__(self, bundles: SharedBundles, every_s: float):
        self.bundles, self.every_s = bundles, every_s
        self.error: str | None = None
        """Why bundles cannot be taken at present."""
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def first(self) -> None:
        """Before the process begins. If the store is away it begins with what the home has.

        Raises:
            StoreAway, BundleError: and it has nothing.
        """
        try:
            self.bundles.take()
        except (StoreAway, BundleError) as error:
            if self.bundles.taken.current() is None:
                raise
            self._tell(str(error))

    def start(self) -> None:
        # A daemon: a store that takes connections and says nothing may hold it for longer than a process may end.
        self._thread = threading.Thread(target=self._run, name="bundle-follower", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stop.set()

    def versions(self) -> list[str]:
        """Those that are published; none while that is not known."""
        try:
            return self.bundles.versions()
        except (StoreAway, BundleError):
            return []

    def _run(self) -> None:
        pause = self.every_s
        while not self._stop.wait(pause):
            try:
                self.bundles.take()
                self._tell(None)
                pause = self.every_s
            except Exception as error:  # of the store, or of this machine, such as a full disk: what is served stays
                ours = isinstance(error, (StoreAway, BundleError))
                self._tell(str(error) if ours else f"{type(error).__name__}: {error}")
                pause = min(max(self.every_s, _PATIENCE_S), 2 * pause)

    def _tell(self, error: str | None) -> None:
        if error and error != self.error:
            log.error("bundle_not_taken stays=%s error=%s", self.bundles.taken.current(), error)
        if self.error and not error:
            log.warning("bundles_taken_again current=%s", self.bundles.taken.current())
        self.error = error
