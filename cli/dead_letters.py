"""``dat dead-letters``: what was set aside, and back to the stream what has been repaired."""

from typing import Annotated

import typer

from cli.options import Bootstrap, Home
from cli.progress import console


def dead_letters(
    home: Home = None,
    bootstrap: Bootstrap = None,
    drain: Annotated[
        bool, typer.Option("--drain", help="Send those that are clicks back, keyed by query, each once.")
    ] = False,
) -> None:
    """Count the dead letters by kind, or send those back that only lay in a wrong partition, had a wrong key or clock.

    Each record's reason, place and bytes are in the topic clicks-dead.
    """
    from model.settings.settings import load_settings
    from streaming.dead_letters import drain as drain_
    from streaming.dead_letters import kinds

    config = load_settings(home=home, bootstrap=bootstrap).updater
    if drain:
        sent, left = drain_(config)
        console.print(f"{sent:,} sent back; {left:,} are no clicks")
    else:
        for kind, count in kinds(config).most_common():
            console.print(f"{kind or '(none)'}: {count:,}")
