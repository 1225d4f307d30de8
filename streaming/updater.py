"""The updater: both stages and the Feast sink as threads of one process, or one stage alone."""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from streaming import metrics
from streaming.clients import close_quietly, free_consumer, partitions_of, quiet_kafka
from streaming.config import UpdaterConfig
from streaming.feast_sink import FeastSink
from streaming.stages import ItemStage, QueryStage
from streaming.topics import SIGNALS_TOPIC
from streaming.worker import Worker
from training.bundle import Bundle

if TYPE_CHECKING:
    from feast import FeatureStore

log = logging.getLogger(__name__)
STAGES = ("query", "item")
_STOP_S = 10


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
) -> None:
    """Keep a bundle's vectors up to the clicks until ``stop`` is set. The topics must exist.

    Args:
        bundle: The model and its state at the cut.
        store: The Feast store with the profiles, and with the views that the sink writes.
        config: Settings.
        stop: Set it to end; batches at hand are finished first.
        stages: ``query``, ``item``, or both.
        feast_sink: Whether this process writes to the online store.
        ready: Called once all that was started has restored its state and follows.

    Raises:
        Exception: what ended one of the threads; the others are stopped first.
    """
    quiet_kafka()
    members: list[Worker | FeastSink] = []
    partitions = signal_partitions(config)
    if "query" in stages:
        members.append(Worker(QueryStage(bundle, store, config, partitions), config, stop))
    if "item" in stages:
        members.append(Worker(ItemStage(bundle, store, config, partitions), config, stop))
    if feast_sink:
        # Named after its stages: processes of different stages may have one instance name.
        members.append(FeastSink(bundle, store, config, stop, "-".join(["feast", *stages])))
    failures: list[BaseException] = []

    def run(member: Worker | FeastSink) -> None:
        try:
            member.run()
        except BaseException as error:  # whatever it is, the process must not go on with half of its threads
            log.exception("stopped_by_error member=%s", member.name)
            failures.append(error)
            stop.set()

    # Daemons, since a commit to a broker that is gone waits for it without end. What it leaves behind is what a crash
    # leaves: nothing that the next start does not put right.
    threads = [threading.Thread(target=run, args=(member,), name=member.name, daemon=True) for member in members]
    server = None
    if config.metrics_port is not None:
        metrics.BUNDLE.labels(bundle.version).set(1)
        server = metrics.serve(
            config.metrics_port,
            alive=lambda: all(thread.is_alive() for thread in threads),
            ready=lambda: all(member.ready.is_set() for member in members),
        )
    for thread in threads:
        thread.start()
    try:
        while not stop.wait(0.05):
            if all(member.ready.is_set() for member in members):
                if ready:
                    ready()
                stop.wait()
    finally:
        stop.set()
        deadline = time.monotonic() + _STOP_S
        for thread in threads:
            thread.join(max(0.1, deadline - time.monotonic()))
            if thread.is_alive():
                log.warning("left_behind member=%s: it waits for the broker", thread.name)
        if server is not None:
            server.shutdown()
            server.server_close()
    if failures:
        raise failures[0]


def signal_partitions(config: UpdaterConfig) -> int:
    """How many partitions the item stage's input has.

    Raises:
        TimeoutError: the topic does not exist.
    """
    consumer = free_consumer(config)
    try:
        return len(partitions_of(consumer, SIGNALS_TOPIC))
    finally:
        close_quietly(consumer)
