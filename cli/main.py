"""``dat``: the one command. Each verb is a file of this folder; what is slow to import, a verb imports when it runs."""

import importlib
import os
import signal
import sys
from typing import NoReturn

import typer
from rich.console import Console

# Idle OpenMP threads spin by default. Beside a broker and Spark on few cores that makes training 20 times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

VERBS = {  # verb: the module of this folder that holds it
    "demo": "demo",
    "nightly": "nightly",
    "updater": "updater",
    "serve": "serve",
    "bundles": "bundles",
    "evaluate": "evaluate",
    "broker": "stack",
    "chaos": "chaos",
    "bench": "bench",
    "test": "test",
}


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
        app.command(verb, context_settings=getattr(found, "CONTEXT", None))(getattr(found, verb))
    return app


def main() -> None:
    """Run a verb. What a person can mend ends in one sentence and a status that is not 0; bugs keep their traceback."""
    # Also where a script has put the command in the background, whose children ignore Ctrl-C; and SIGTERM is the same.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        build()(prog_name="dat")
    except KeyboardInterrupt:
        _stopped()
    except Exception as error:
        if interrupted(error):
            _stopped()
        sentence = explain(error)
        if sentence is None:
            raise
        Console(stderr=True, highlight=False, soft_wrap=True).print(f"[red]dat:[/] {sentence}")
        sys.exit(1)


def _stopped() -> NoReturn:
    Console(stderr=True).print("\nstopped")
    sys.exit(130)


def interrupted(error: BaseException | None) -> bool:
    """Whether an error is what Ctrl-C left behind: a library that tidies up on the way out may fail at it, and its
    error then takes the interrupt's place (Spark's, when its JVM no longer answers).
    """
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


def explain(error: BaseException) -> str | None:
    """The sentence for an error that a person can mend; None for a bug.

    The project's own errors are such sentences already. A full disk reaches us in many libraries' wrappings.
    """
    if "No space left on device" in str(error):
        return "the disk is full: free some space or give another folder with --home"
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    room = type(error).__module__.split(".")[0]
    return str(error) if room in ("cli", "feature_repo", "training", "spark_jobs", "streaming", "serving") else None
