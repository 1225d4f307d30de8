"""Options that several verbs have in common."""

from pathlib import Path
from typing import Annotated

import typer

Home = Annotated[
    str | None, typer.Option("--home", help="The system's home: a folder, or a URL [DAT_HOME; default .dat].")
]
Data = Annotated[str | None, typer.Option("--data", help="Dataset card: a name or a TOML file [DAT_DATASET].")]
Bootstrap = Annotated[str | None, typer.Option("--bootstrap", help="The Kafka brokers, host:port[,host:port].")]
Redis = Annotated[str | None, typer.Option("--redis", help="host:port of a Redis to answer online, instead of SQLite.")]
Json = Annotated[Path | None, typer.Option("--json", help="Write the summary to this file.")]
