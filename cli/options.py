"""Options that several verbs have in common."""

from pathlib import Path
from typing import Annotated

import typer

from feature_repo.home_url import on_this_machine


def here(path: Path | None) -> Path | None:
    """Where a verb writes: a file or folder of this machine.

    Raises:
        typer.BadParameter: it is a URL.
    """
    try:
        return path and Path(on_this_machine(path))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


Home = Annotated[
    str | None, typer.Option("--home", help="The system's home: a folder, or a URL [DAT_HOME; default .dat].")
]
Data = Annotated[str | None, typer.Option("--data", help="Dataset card: a name or a TOML file [DAT_DATASET].")]
Bootstrap = Annotated[str | None, typer.Option("--bootstrap", help="The Kafka brokers, host:port[,host:port].")]
Redis = Annotated[str | None, typer.Option("--redis", help="host:port of a Redis to answer online, instead of SQLite.")]
Json = Annotated[Path | None, typer.Option("--json", callback=here, help="Write the summary to this file.")]
