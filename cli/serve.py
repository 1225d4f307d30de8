"""``dat serve``: answer over HTTP until stopped."""

import os
import socket
import sys
from pathlib import Path
from typing import Annotated

import typer


def serve(
    home: Annotated[Path, typer.Option(envvar="DAT_HOME", help="The system's home folder.")] = Path(".dat"),
    bootstrap: Annotated[
        str, typer.Option(envvar="DAT_BOOTSTRAP", help="The Kafka broker, host:port.")
    ] = "127.0.0.1:9092",
    redis: Annotated[
        str | None,
        typer.Option(envvar="DAT_REDIS", help="host:port of a Redis that answers online, instead of SQLite."),
    ] = None,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port to listen on; 0 takes a free one.")] = 8000,
    clock: Annotated[
        str, typer.Option(help="What now is: wall, data (the newest click's time, for replays), auto.")
    ] = "auto",
    category: Annotated[
        str | None, typer.Option(help="The item feature that the category filter reads; by default the first.")
    ] = None,
    api_key: Annotated[str | None, typer.Option(envvar="DAT_API_KEY", help="Ask callers of /v1 for this key.")] = None,
) -> None:
    """Answer with a query's top N over HTTP: the page at /, the API under /v1, its documentation at /docs."""
    listening = _listen(host, port)

    import logging
    import warnings

    warnings.simplefilter("ignore")  # Feast and its friends warn at import, about themselves
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    logging.getLogger("kafka").setLevel(logging.CRITICAL)  # it reports every reconnection; the follower says it once
    logging.getLogger("feast").setLevel(logging.ERROR)

    import faiss
    import torch
    import uvicorn
    from kafka.errors import KafkaError
    from pydantic import ValidationError

    from feature_repo.store import open_store
    from serving.api import create_app
    from serving.config import ServingConfig
    from serving.service import Service
    from training.bundle import BundleError, Shelf

    # One thread a pass: the arrays are small, and more would fight the updater for the cores.
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    try:
        bundle = Shelf(home / "bundles").load()
        service = Service(bundle, open_store(home, redis), bootstrap, home, ServingConfig(clock=clock), category)
    except BundleError as error:
        _fail(str(error))
    except ValidationError as error:
        _fail(f"a setting is not valid: {error.errors()[0]['msg']}")
    except KafkaError as error:
        _fail(f"no Kafka broker answers at {bootstrap} ({type(error).__name__}): start one, or give --bootstrap")
    shown = listening.getsockname()
    print(
        f"serving {bundle.version}, {len(service.retriever.served.corpus):,} items, at http://{shown[0]}:{shown[1]}"
        f" — try: curl 'http://{shown[0]}:{shown[1]}/v1/retrieve?query_id={bundle.queries.ids[0]}&n=10'",
        flush=True,
    )
    config = uvicorn.Config(
        create_app(service, api_key), log_level="warning", access_log=False, timeout_graceful_shutdown=5
    )
    uvicorn.Server(config).run(sockets=[listening])


def _listen(host: str, port: int) -> socket.socket:
    """The listening socket, before anything slow is loaded: a port in use is known at once."""
    listening = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen(2048)
    except OSError as error:
        why = os.strerror(error.errno or 0)
        _fail(f"cannot listen on {host}:{port} ({why}): end what uses it, or choose another with --port")
    return listening


def _fail(message: str) -> None:
    print(f"dat serve: {message}", file=sys.stderr)
    raise typer.Exit(2)
