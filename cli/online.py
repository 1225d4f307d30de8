"""``dat online``: the online store's rows of the stream."""

from typing import Annotated

import typer

from cli.options import Bootstrap, Home, Redis
from cli.progress import console


def online(
    home: Home = None,
    bootstrap: Bootstrap = None,
    redis: Redis = None,
    refill: Annotated[bool, typer.Option("--refill", help="Have the running sinks write every row anew.")] = False,
) -> None:
    """Say whether the online store has the stream's rows, or have them written anew.

    A store that comes back empty is refilled by itself; --refill is for one that has lost or kept wrong rows.
    """
    from feature_repo.store import open_store
    from model.settings.settings import load_settings
    from streaming.sink.feast_sink import refill as refill_
    from streaming.sink.feast_sink import whole

    settings = load_settings(home=home, bootstrap=bootstrap, redis=redis)
    store = open_store(settings.home, settings.redis)
    if refill:
        console.print(f"the sinks write the rows of {refill_(store, settings.updater)} partitions anew")
    else:
        present, every = whole(store, settings.updater)
        console.print(f"the store has the rows of {present} of {every} partitions")
