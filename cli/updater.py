"""``dat updater``: keep the augmented vectors and the item vectors up to the clicks."""

import logging
import signal
import threading
from pathlib import Path
from typing import Annotated, Literal

import typer


def updater(
    home: Annotated[Path, typer.Option(help="The system's home folder: bundles and the Feast store.")] = Path(".dat"),
    bootstrap: Annotated[str, typer.Option(help="Kafka's host:port; several, separated by commas.")] = "127.0.0.1:9092",
    stage: Annotated[Literal["query", "item", "both"], typer.Option(help="Which stage this process runs.")] = "both",
    redis: Annotated[str | None, typer.Option(help="host:port of the Redis online store, in place of SQLite.")] = None,
    instance: Annotated[
        str, typer.Option(help="This process's name among those of its stage: unique, and the same after a restart.")
    ] = "0",
    feast: Annotated[bool, typer.Option(help="Write to the Feast online store; one process at least should.")] = True,
    partitions: Annotated[int, typer.Option(help="Partitions of topics that do not exist yet.")] = 4,
    security: Annotated[
        Path | None, typer.Option(help="TOML file with security_protocol, ssl_… and sasl_… settings for Kafka.")
    ] = None,
) -> None:
    """Follow the clicks: fold each into the augmented vectors of its query and its item, exactly once.

    Start as many processes a stage as there are partitions; each takes its share, and takes over from one that dies.
    It ends cleanly on Ctrl-C or SIGTERM, and starts again where it was.
    """
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("streaming").setLevel(logging.INFO)
    from kafka.errors import KafkaError

    from feature_repo.store import open_store
    from streaming.clients import create_topics, quiet_kafka
    from streaming.config import UpdaterConfig
    from streaming.contract import ContractError, check_services
    from streaming.updater import STAGES, run_updater
    from streaming.worker import WorkerError
    from training.bundle import BundleError, Shelf

    quiet_kafka()
    stop = threading.Event()
    for sign in (signal.SIGTERM, signal.SIGINT):
        signal.signal(sign, lambda *_: stop.set())
    try:
        config = UpdaterConfig(bootstrap=bootstrap, instance=instance, **_security(security))
        bundle = Shelf(home / "bundles").load()
        store = open_store(home, redis)
        check_services(store, bundle.manifest)
        create_topics(config, partitions)
        stages = STAGES if stage == "both" else (stage,)
        run_updater(
            bundle, store, config, stop, stages=stages, feast_sink=feast,
            ready=lambda: print(f"updater ready: {stage}, bundle {bundle.version}, Kafka {bootstrap}", flush=True),
        )  # fmt: skip
    except KafkaError as error:
        _refuse(f"Kafka at {bootstrap} does not answer ({type(error).__name__}): start the broker, or set --bootstrap")
    except (BundleError, ContractError, WorkerError, TimeoutError, ValueError) as error:
        _refuse(str(error))


def _security(file: Path | None) -> dict:
    """The settings of a TOML file, which are fields of ``KafkaConnection``."""
    if file is None:
        return {}
    import tomllib

    return tomllib.loads(file.read_text())


def _refuse(message: str) -> None:
    typer.echo(message, err=True)
    raise typer.Exit(1)
