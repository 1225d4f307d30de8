"""``dat updater``: keep the augmented vectors and the item vectors up to the clicks."""

import logging
import signal
import threading
from typing import Annotated, Literal

import typer

from cli.settings import Bootstrap, Home, Redis, load_settings


def updater(
    home: Home = None,
    bootstrap: Bootstrap = None,
    stage: Annotated[Literal["query", "item", "both"], typer.Option(help="Which stage this process runs.")] = "both",
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
    from cli.preflight import quiet

    stop = threading.Event()
    for sign in (signal.SIGTERM, signal.SIGINT):
        signal.signal(sign, lambda *_: stop.set())
    settings = load_settings(home=home, bootstrap=bootstrap, redis=redis)
    config = settings.updater
    given = {"instance": instance, "metrics_port": metrics_port}
    config = config.model_copy(update={name: value for name, value in given.items() if value is not None})
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("streaming").setLevel(logging.INFO)
    quiet()
    import torch
    from kafka.errors import KafkaError

    from feature_repo.store import open_store
    from streaming.clients import create_topics
    from streaming.contract import check_services
    from streaming.generation import STAGES
    from streaming.updater import UpdaterError, run_updater
    from training.bundle import Shelf

    torch.set_num_threads(1)  # a process is one stage's worth of work; scale by adding processes
    shelf = Shelf(settings.home / "bundles")
    chosen = shelf.load(bundle)
    store = open_store(settings.home, settings.redis)
    check_services(store, chosen.manifest)
    try:
        create_topics(config, partitions)
        run_updater(
            chosen, store, config, stop, stages=STAGES if stage == "both" else (stage,), feast_sink=feast,
            ready=lambda: print(f"updating {chosen.version}: {stage}, Kafka at {config.bootstrap}", flush=True),
            shelf=shelf if bundle is None else None,
        )  # fmt: skip
    except KafkaError as error:
        raise UpdaterError(
            f"Kafka at {config.bootstrap} does not answer ({type(error).__name__}): start it, or give --bootstrap"
        ) from error
