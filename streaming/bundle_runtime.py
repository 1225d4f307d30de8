"""One bundle's part in this process: the workers of its stages and, once it is in service, its Feast sink."""

import gc
import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from model.bundle import Bundle
from model.settings.updater import UpdaterConfig
from streaming.forgetting import read_forgotten, without
from streaming.kafka.offsets import bundle_starts
from streaming.kafka.topics import same_partitions
from streaming.sink.feast_sink import FeastSink
from streaming.stages.stage import ItemStage, QueryStage
from streaming.worker import Worker

if TYPE_CHECKING:
    from feast import FeatureStore

log = logging.getLogger(__name__)
STAGES = ("query", "item")
_STOP_S = 10


def tidy() -> None:
    """Keep Python's collector from walking over all that was loaded again and again, and free what was replaced."""
    gc.unfreeze()  # a frozen bundle that has been replaced would never be freed
    gc.collect()
    gc.freeze()


class BundleRuntime:
    """Starts a bundle's workers; :meth:`serve` starts its sink, :meth:`end` ends both.

    Two of them can work side by side, each in consumer groups and a vector space of its own.

    Args:
        on_failure: Called, on the failing thread, when a member has ended by an error, which is then :attr:`failure`;
            the others go on until told.

    Raises:
        TimeoutError: the topics do not exist.
    """

    def __init__(
        self,
        bundle: Bundle,
        store: "FeatureStore",
        config: UpdaterConfig,
        stages: Sequence[str],
        on_failure: Callable[["BundleRuntime"], None],
    ):
        self.bundle, self.stages = without(bundle, read_forgotten(config)), tuple(stages)
        self.failure: BaseException | None = None
        self._store, self._config, self._on_failure = store, config, on_failure
        self._stop = threading.Event()
        self.members: list[Worker | FeastSink] = []
        self._threads: list[threading.Thread] = []
        self.topics = same_partitions(config)
        (_, partitions), starts = self.topics[config.topics.item_signals], bundle_starts(config, bundle.version)
        made = [
            stage(self.bundle, store, config, partitions, starts)
            for name, stage in (("query", QueryStage), ("item", ItemStage))
            if name in stages
        ]
        for stage in made:
            self._start(Worker(stage, config, self._stop))
        tidy()

    @property
    def version(self) -> str:
        return self.bundle.version

    @property
    def ready(self) -> bool:
        """Whether all that was started has restored its state and follows."""
        return all(member.ready for member in self.members)

    @property
    def alive(self) -> bool:
        return all(thread.is_alive() for thread in self._threads)

    def serve(self) -> None:
        """From now on the online store holds this bundle's vectors."""
        # Named after its stages: processes of different stages may have one instance name.
        name = "-".join(["feast", *self.stages])
        self._start(FeastSink(self.bundle, self._store, self._config, self._stop, name))

    def end(self) -> None:
        """Stop after the batches at hand."""
        self._stop.set()
        deadline = time.monotonic() + _STOP_S
        for thread in self._threads:
            thread.join(max(0.1, deadline - time.monotonic()))
            if thread.is_alive():
                log.warning("left_behind member=%s: it waits for the broker", thread.name)

    def _start(self, member: Worker | FeastSink) -> None:
        # Daemons, since a commit to a broker that is gone waits for it without end. What it leaves behind is what a
        # crash leaves: nothing that the next start does not put right.
        thread = threading.Thread(target=self._run, args=(member,), name=member.name, daemon=True)
        self.members.append(member)
        self._threads.append(thread)
        thread.start()

    def _run(self, member: Worker | FeastSink) -> None:
        try:
            member.run()
        except BaseException as error:  # whatever it is, the process must not go on with half of its threads
            log.exception("stopped_by_error member=%s", member.name)
            self.failure = self.failure or error
            self._on_failure(self)
