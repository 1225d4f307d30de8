"""``dat serve``: answer over HTTP until stopped."""

import contextlib
import gc
import os
import socket
import sys
from typing import Annotated, Literal

import typer

from cli.options import Bootstrap, Data, Home, Redis
from model.settings.settings import load_settings


def serve(
    home: Home = None,
    data: Data = None,
    bootstrap: Bootstrap = None,
    redis: Redis = None,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port to listen on; 0 takes a free one.")] = 8000,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Processes behind the port, each on one core.")] = 1,
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
    from cli.logs import set_up
    from cli.preflight import check_tracing, day_process, take_bundles

    check_tracing(settings)
    day_process()
    set_up(settings)
    from model.bundle_store import BundleStore

    follower = take_bundles(settings, config.watch_s)
    bundle = BundleStore(settings.home / "bundles").load()  # before what takes seconds to import
    from feature_repo.card import CardError
    from feature_repo.store import open_store
    from model.tracing import tracing
    from serving.http.gate import LOOPBACK
    from serving.http.server import Server
    from serving.http.workers import run_workers
    from serving.service import Service

    # The threads share Python's lock. By default it changes hands every 5 ms, and an answer would wait for that.
    sys.setswitchinterval(0.0005)
    store = open_store(settings.home, settings.redis)
    with contextlib.suppress(CardError):  # a bundle serves without its card
        if config.category_field is None and settings.card.name == bundle.manifest.dataset:
            config = config.model_copy(update={"category_field": settings.card.item.category})
    service = Service(bundle, store, settings.updater, settings.home, config, follower)
    # What was loaded stays: without this, Python's collector walks over millions of ids again and again.
    gc.collect()
    gc.freeze()
    if not _reachable(settings.updater.bootstrap):
        print(
            f"dat: Kafka at {settings.updater.bootstrap} does not answer: until it does, answers are as of the "
            "bundle's cut and clicks are refused (--bootstrap says where it is)",
            file=sys.stderr,
        )
    address = "http://{}:{}".format(*listening.getsockname()[:2])
    print(
        f"serving {bundle.version}, {len(service.snapshot.corpus):,} items, at {address} — "
        f"try: curl '{address}/v1/retrieve?query_id={bundle.queries.ids[0]}&n=10'",
        flush=True,
    )
    hosts = (*config.hosts, *(LOOPBACK if host in LOOPBACK or host == "::1" else ()))

    def work() -> None:
        with tracing(settings.tracing, "dat-serve"):
            Server(service, hosts).run(sockets=[listening])

    if workers == 1:
        work()
    else:
        run_workers(workers, work)


def _reachable(bootstrap: str) -> bool:
    """Whether something listens at one of the brokers' addresses."""
    for address in bootstrap.split(","):
        host, _, port = address.rpartition(":")
        with contextlib.suppress(OSError, ValueError), socket.create_connection((host, int(port)), 1):
            return True
    return False


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
