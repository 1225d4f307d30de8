"""``dat updater``: keep the augmented vectors and the item vectors up to the clicks."""

import signal
import threading
from typing import Annotated, Literal

import typer

from cli.logs import kafka_cause, set_up
from cli.options import Bootstrap, Home, Redis
from model.settings.settings import load_settings


def updater(
    home: Home = None,
    bootstrap: Bootstrap = None,
    stage: Annotated[
        Literal["query", "item", "both", "sink"],
        typer.Option(help="Which stage this process runs; sink: none, it only writes to the online store."),
    ] = "both",
    redis: Redis = None,
    instance: Annotated[
        str | None,
        typer.Option(help="This process's name among those of its stage: unique, and the same after a restart."),
    ] = None,
    bundle: Annotated[
        str | None,
        typer.Option(help="Run for this bundle, in place of the one in service: with --no-feast, for an experiment."),
    ] = None,
    feast: Annotated[bool, typer.Option(help="Write to the Feast online store; one process at least should.")] = True,
    metrics_port: Annotated[
        int | None, typer.Option(help="Answer /metrics, /healthz and /readyz on this port of 127.0.0.1.")
    ] = None,
    partitions: Annotated[int, typer.Option(help="Partitions of topics that do not exist yet.")] = 4,
) -> None:
    """Follow the clicks: fold each into the augmented vectors of its query and its item, exactly once.

    Start as many processes a stage as there are partitions; each takes its share, and takes over from one that dies.
    When another bundle is put into service, it brings that one up beside the old one and goes over to it.
    It ends cleanly on Ctrl-C or SIGTERM, and starts again where it was.
    """
    from cli.preflight import check_tracing, day_process, take_bundles

    if stage == "sink" and not feast:
        raise typer.BadParameter("--stage sink with --no-feast leaves nothing to do")
    stop = threading.Event()
    for sign in (signal.SIGTERM, signal.SIGINT):
        signal.signal(sign, lambda *_: stop.set())
    settings = load_settings(home=home, bootstrap=bootstrap, redis=redis)
    config = settings.updater
    given = {"instance": instance, "metrics_port": metrics_port}
    config = config.model_copy(update={name: value for name, value in given.items() if value is not None})
    set_up(settings)
    check_tracing(settings)
    day_process()
    from model.bundle_store import BundleStore

    follower = take_bundles(settings, config.watch_s)
    shelf = BundleStore(settings.home / "bundles")
    chosen = (follower.bundles if follower and bundle else shelf).load(bundle)  # before what takes seconds to import
    from kafka.errors import KafkaError

    from feature_repo.store import open_store
    from model.tracing import tracing
    from streaming.bundle_runtime import STAGES
    from streaming.contract import check_services
    from streaming.kafka.topics import create_topics
    from streaming.metrics import CannotListen
    from streaming.updater import UpdaterError, run_updater

    store = open_store(settings.home, settings.redis)
    check_services(store, chosen.manifest)
    try:
        create_topics(config, partitions)
        with tracing(settings.tracing, "dat-updater"):
            run_updater(
                chosen, store, config, stop, stages={"both": STAGES, "sink": ()}.get(stage, (stage,)), feast_sink=feast,
                ready=lambda: print(f"updating {chosen.version}: {stage}, Kafka at {config.bootstrap}", flush=True),
                shelf=shelf if bundle is None else None, follower=follower if bundle is None else None,
            )  # fmt: skip
    except CannotListen as error:
        raise UpdaterError(f"{error}: end what uses it, or choose another with --metrics-port") from error
    except KafkaError as error:
        raise UpdaterError(
            f"Kafka at {config.bootstrap} does not answer ({kafka_cause(error)}): start it, or give --bootstrap"
        ) from error
