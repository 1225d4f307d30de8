"""The updater: a bundle's stages and its Feast sink, until told to stop; and the change to another bundle under way."""

import logging
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from kafka.errors import KafkaError

from model.bundle import Bundle
from model.bundle_follower import BundleFollower
from model.bundle_store import BundleStore
from model.settings.updater import UpdaterConfig
from streaming import metrics
from streaming.bundle_runtime import STAGES, BundleRuntime, tidy
from streaming.catch_up import CatchUp
from streaming.contract import check_services
from streaming.kafka.clients import quiet_kafka
from streaming.monitor import Monitor

if TYPE_CHECKING:
    from feast import FeatureStore

log = logging.getLogger(__name__)


class UpdaterError(RuntimeError):
    """The updater cannot run. The message says why and what to do."""


def run_updater(
    bundle: Bundle,
    store: "FeatureStore",
    config: UpdaterConfig,
    stop: threading.Event,
    stages: Sequence[str] = STAGES,
    feast_sink: bool = True,
    ready: Callable[[], None] | None = None,
    shelf: BundleStore | None = None,
    follower: BundleFollower | None = None,
) -> None:
    """Keep a bundle's vectors up to the clicks until ``stop`` is set. The topics must exist.

    Args:
        bundle: The model and its state at the cut.
        store: The Feast store with the profiles, and with the views that the sink writes.
        config: Settings.
        stop: Set it to end; batches at hand are finished first.
        stages: ``query``, ``item``, both, or none: this process is a sink alone.
        feast_sink: Whether this process writes to the online store.
        ready: Called once all that was started has restored its state and follows.
        shelf: Watched for another bundle in service, which takes this one's place; None: nothing is.
        follower: What brings bundles onto the shelf from an object store, if something has to.

    Raises:
        Exception: what ended one of the threads; the others are stopped first.
    """
    quiet_kafka()
    published = follower.versions if follower else shelf.versions if shelf else list
    updater = _Updater(store, config, stop, stages, feast_sink, published)
    server = None
    try:
        if config.metrics_port is not None:  # before a group is joined: the port may be taken
            server = metrics.serve(config.metrics_host, config.metrics_port, updater.alive, updater.ready)
        updater.start(bundle)
        if follower is not None:
            metrics.BUNDLES_OK.set_function(lambda: float(follower.error is None))
            follower.start()
        while not stop.wait(0.05) and not updater.ready():
            pass
        if ready and not stop.is_set():
            ready()
        while not stop.wait(config.watch_s):
            if shelf is not None:
                updater.watch(shelf)
    finally:
        stop.set()
        if follower is not None:
            follower.close()
        updater.end()
        if server is not None:
            server.shutdown()
            server.server_close()
    if updater.failure is not None:
        raise updater.failure


class _Updater:
    """What runs: one runtime, and beside it the next one while that replays the clicks since its cut."""

    def __init__(
        self,
        store: "FeatureStore",
        config: UpdaterConfig,
        stop: threading.Event,
        stages: Sequence[str],
        sink: bool,
        published: Callable[[], list[str]],
    ):
        self.failure: BaseException | None = None
        self._store, self._config, self._stop, self._stages, self._sink = store, config, stop, stages, sink
        self._current: BundleRuntime | None = None
        self._next: BundleRuntime | None = None
        self._catch_up: CatchUp | None = None
        self._refused: set[str] = set()
        self._monitor = Monitor(config, lambda: self._serving.members, published, self._end_with)

    def start(self, bundle: Bundle) -> None:
        self._current = self._runtime(bundle)
        self._serve()
        self._monitor.start()

    @property
    def _serving(self) -> BundleRuntime:
        assert self._current is not None, "start comes first"
        return self._current

    def alive(self) -> bool:
        return self._current is None or self._current.alive

    def ready(self) -> bool:
        """Whether clicks get through: all state is restored, no error repeats, and what waits is worked on."""
        return self._current is not None and self._current.ready and self._monitor.flowing

    def end(self) -> None:
        self._monitor.end()
        for runtime in (self._next, self._current):
            if runtime is not None:
                runtime.end()

    def watch(self, shelf: BundleStore) -> None:
        """Look which bundle is in service: begin to bring another one up, hand over to it, or drop it again."""
        version, coming = shelf.current(), self._next
        if coming is not None and coming.failure is not None:
            self._refuse(coming.version, coming.failure)
        if coming is not None and (coming.failure is not None or version != coming.version):
            self._drop(coming)
            coming = None
        if version is None or version == self._serving.version or version in self._refused:
            return
        if coming is None:
            self._bring_up(shelf, version)
        elif self._caught_up(coming):
            self._hand_over(coming)

    def _runtime(self, bundle: Bundle) -> BundleRuntime:
        return BundleRuntime(bundle, self._store, self._config, self._stages, self._failed)

    def _failed(self, runtime: BundleRuntime) -> None:
        if self._current is None or runtime is self._current:
            self._end_with(runtime.failure)

    def _end_with(self, error: BaseException | None) -> None:
        self.failure = self.failure or error
        self._stop.set()

    def _bring_up(self, shelf: BundleStore, version: str) -> None:
        try:
            bundle = shelf.load(version)
            check_services(self._store, bundle.manifest)
            self._next = self._runtime(bundle)
        except (KafkaError, TimeoutError) as error:
            log.warning("bundle_waits bundle=%s error=%r", version, error)  # for the broker: looked at again
            return
        except Exception as error:  # whatever is wrong with it must not take down the one that works
            if shelf.current() == version:  # else it was taken back, or pruned, meanwhile
                self._refuse(version, error)
            return
        self._catch_up = CatchUp(self._config, self._serving.version, bundle.manifest)
        log.info("bundle_preparing bundle=%s beside=%s", version, self._serving.version)

    def _refuse(self, version: str, error: BaseException) -> None:
        self._refused.add(version)
        metrics.REFUSED.inc()
        log.error("bundle_refused bundle=%s stays=%s error=%s", version, self._serving.version, error)

    def _caught_up(self, coming: BundleRuntime) -> bool:
        try:
            return coming.ready and self._catch_up is not None and self._catch_up.done()
        except (KafkaError, TimeoutError) as error:
            log.warning("catch_up_unknown bundle=%s error=%r", coming.version, error)
            return False

    def _hand_over(self, coming: BundleRuntime) -> None:
        old, self._current, self._next = self._serving, coming, None
        old.end()  # first: the store has one writer
        metrics.BUNDLE.labels(old.version).set(0)
        self._serve()
        version = old.version
        del old
        tidy()
        log.info("bundle_in_service bundle=%s before=%s", coming.version, version)

    def _drop(self, coming: BundleRuntime) -> None:
        log.info("bundle_dropped bundle=%s stays=%s", coming.version, self._serving.version)
        coming.end()
        self._next = None

    def _serve(self) -> None:
        metrics.BUNDLE.labels(self._serving.version).set(1)
        if self._sink:
            self._serving.serve()
