"""``dat serve``: answer over HTTP until stopped."""

import contextlib
import gc
import os
import socket
import sys
from typing import Annotated, Literal

import typer

from cli.settings import Bootstrap, Data, Home, Redis, load_settings


def serve(
    home: Home = None,
    data: Data = None,
    bootstrap: Bootstrap = None,
    redis: Redis = None,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port to listen on; 0 takes a free one.")] = 8000,
    clock: Annotated[
        Literal["auto", "wall", "data"] | None,
        typer.Option(help="What now is: the wall clock, or the newest click's time (for a replay of old clicks)."),
    ] = None,
) -> None:
    """Answer with a query's top N over HTTP: the page at /, the API under /v1, its documentation at /docs.

    It serves the bundle in service and follows the updater's vectors. Exit status 2: it cannot listen there.
    """
    settings = load_settings(home=home, dataset=data, bootstrap=bootstrap, redis=redis)
    config = settings.serving if clock is None else settings.serving.model_copy(update={"clock": clock})
    listening = _listen(host, port)
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before numpy: the arrays are small, and its threads spin

    from cli.preflight import quiet

    quiet()
    import faiss
    import torch
    import uvicorn
    from kafka.errors import KafkaError

    from feature_repo.card import CardError
    from feature_repo.store import open_store
    from serving.api import create_app
    from serving.service import CannotStart, Service
    from training.bundle import Shelf

    # The thread that speaks HTTP and the one that answers share Python's lock. By default it changes hands every 5 ms,
    # and a request would wait for that several times.
    sys.setswitchinterval(0.0005)
    # One thread a pass: the arrays are small, and more would fight the updater for the cores.
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    bundle = Shelf(settings.home / "bundles").load()
    store = open_store(settings.home, settings.redis)
    with contextlib.suppress(CardError):  # a bundle serves without its card
        if config.category_field is None and settings.card.name == bundle.manifest.dataset:
            config = config.model_copy(update={"category_field": settings.card.item.category})
    try:
        service = Service(bundle, store, settings.updater, settings.home, config)
    except KafkaError as error:
        why = f"Kafka at {settings.updater.bootstrap} does not answer ({type(error).__name__})"
        raise CannotStart(f"{why}: start it, or give --bootstrap") from error
    # What was loaded stays: without this, Python's collector walks over millions of ids again and again.
    gc.collect()
    gc.freeze()
    address = "http://{}:{}".format(*listening.getsockname()[:2])
    print(
        f"serving {bundle.version}, {len(service.retriever.served.corpus):,} items, at {address} — "
        f"try: curl '{address}/v1/retrieve?query_id={bundle.queries.ids[0]}&n=10'",
        flush=True,
    )
    server = uvicorn.Config(
        create_app(service),
        log_level="warning",
        access_log=False,
        timeout_keep_alive=60,  # clients that keep connections for less never take up one that is being closed
        timeout_graceful_shutdown=5,
    )
    uvicorn.Server(server).run(sockets=[listening])


def _listen(host: str, port: int) -> socket.socket:
    """The listening socket, before anything slow is loaded: a port in use is known at once."""
    listening = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen(2048)
    except OSError as error:
        why = os.strerror(error.errno or 0)
        print(
            f"dat: cannot listen on {host}:{port} ({why}): end what uses it, or choose another with --port",
            file=sys.stderr,
        )
        raise typer.Exit(2) from None
    return listening
