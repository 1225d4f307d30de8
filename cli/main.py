"""``dat``: the one command. Each verb is a file of this folder; what is slow to import, a verb imports when it runs."""

import errno
import importlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import NoReturn

import typer
from rich.console import Console
from rich.markup import escape

from cli.logs import quiet

# Idle OpenMP threads spin by default. Beside a broker and Spark on few cores that makes training 20 times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

VERBS = {  # verb: the module of this folder that holds it
    "play": "play",
    "demo": "demo",
    "data": "data",
    "nightly": "nightly",
    "lake": "lake",
    "updater": "updater",
    "serve": "serve",
    "online": "online",
    "forget": "forget",
    "dead-letters": "dead_letters",
    "status": "status",
    "bundles": "bundles",
    "ab": "ab",
    "generate": "generate",
    "evaluate": "evaluate",
    "tune": "tune",
    "experiment": "experiment",
    "broker": "broker",
    "chaos": "chaos",
    "simulate": "simulate",
    "bench": "bench",
    "check": "check",
    "test": "test",
}
_READERS = ("py4j", "pyspark", "duckdb", "_duckdb", "pyarrow", "builtins", "ibis")  # of tables in object stores
FOLDERS = (
    "cli", "devstack", "evaluation", "feature_repo", "model", "serving", "spark_jobs", "streaming", "training",
)  # fmt: skip


def build() -> typer.Typer:
    """The command with all its verbs."""
    app = typer.Typer(
        add_completion=False,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        help="DAT: the Dual Augmented Two-tower model as a batch and streaming retrieval system.",
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    for verb, module in VERBS.items():
        found = importlib.import_module(f"cli.{module}")
        command = getattr(found, module)
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=verb)
        else:
            app.command(verb, context_settings=getattr(found, "CONTEXT", None))(command)
    return app


def main() -> None:
    """Run a verb. What a person can mend ends in one sentence and a status that is not 0; bugs keep their traceback."""
    interrupted = threading.Event()

    def interrupt(*_: object) -> NoReturn:
        interrupted.set()
        raise KeyboardInterrupt

    def again(dropped: "sys.UnraisableHookArgs") -> None:
        # Python drops what is raised while it frees an object (py4j has callbacks for Java's): the verb would go on.
        if dropped.exc_type is KeyboardInterrupt:
            signal.setitimer(signal.ITIMER_REAL, 0.05)
        else:
            sys.__unraisablehook__(dropped)

    sys.unraisablehook = again
    signal.signal(signal.SIGALRM, interrupt)
    # Also where a script has put the command in the background, whose children ignore Ctrl-C; and SIGTERM is the same.
    signal.signal(signal.SIGINT, interrupt)
    signal.signal(signal.SIGTERM, interrupt)
    quiet()
    try:
        build()(prog_name="dat")
    except SystemExit as ended:
        if interrupted.is_set() and ended.code == 130:  # as typer makes it of a Ctrl-C
            Console(stderr=True).print("\nstopped")
        raise
    except BaseException as error:
        # Libraries that are interrupted half-way raise errors of their own in its place: Spark's, Arrow's, pydantic's.
        if interrupted.is_set():
            Console(stderr=True).print("\nstopped")
            sys.exit(130)
        sentence = explain(error)
        if sentence is None:
            raise
        Console(stderr=True, highlight=False, soft_wrap=True).print(f"[red]dat:[/] {escape(sentence)}")
        sys.exit(1)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error and those that it was raised from, or while they were handled."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


_FULL = ("No space left on device", "disk is full", "Disk quota exceeded")  # Java's and DuckDB's, SQLite's, a quota's


def _disk_full(error: BaseException) -> bool:
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    return full or any(words in str(error) for words in _FULL)


def explain(error: BaseException) -> str | None:
    """The sentence for an error that a person can mend; None for a bug.

    The project's own errors are such sentences already. A full disk reaches us in many libraries' wrappings.
    """
    if any(_disk_full(each) for each in _chain(error)):
        return "the disk is full: free some space or give another folder with --home"
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, ModuleNotFoundError) and error.name and error.name.split(".")[0] not in FOLDERS:
        return f"{error.name} is not installed here: a plain installation or the night's image has what this verb needs"
    folder = type(error).__module__.split(".")[0]
    if folder == "kafka":
        from kafka import errors as kafka

        from cli.logs import kafka_cause

        away = kafka.KafkaConnectionError, kafka.KafkaTimeoutError, kafka.SaslAuthenticationFailedError
        if isinstance(error, (*away, kafka.AuthorizationError)):
            return f"Kafka does not answer ({kafka_cause(error)}): start it, or give --bootstrap"
    if folder in FOLDERS:
        return str(error)
    if folder in _READERS:
        from feature_repo.object_store import StoreAway

        behind = StoreAway.behind(str(error))
        return str(behind) if behind else None
    return None
