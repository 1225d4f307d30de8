"""What is worth checking before long work begins, so that it fails in its first second or not at all."""

import importlib.util
import os
import shutil
import socket
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, cast

from feature_repo.card import CardError
from model.settings.settings import Settings, SettingsError

if TYPE_CHECKING:
    from model.bundle_follower import BundleFollower

NEEDED = 500 << 20


class PreflightError(RuntimeError):
    """The machine is not ready. The message says what to do."""


def day_process() -> None:
    """Make this process one of the day's, before it imports NumPy and Feast: with one thread for arithmetic, since it
    is scaled by processes, and without torch and DuckDB, which Feast loads wherever they are installed."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    for name in ("torch", "duckdb"):
        sys.modules.setdefault(name, cast("ModuleType", None))  # as if it were not installed


def check_tracing(settings: Settings) -> None:
    """Raise if traces are asked for and cannot be sent.

    Raises:
        SettingsError: OpenTelemetry's exporter is not installed.
    """
    try:
        here = not settings.tracing or bool(importlib.util.find_spec("opentelemetry.exporter.otlp.proto.http"))
    except ModuleNotFoundError:  # a package around it
        here = False
    if not here:
        raise SettingsError(
            "the setting tracing: OpenTelemetry's exporter is not installed here: install the extra otel "
            "(requirements/otel.lock has the service, the updater and it)"
        )


def take_bundles(settings: Settings, every_s: float) -> "BundleFollower | None":
    """Bring a home that takes its bundles from an object store to the one in service; then the follower, to be started.

    Raises:
        StoreAway, BundleError: none can be taken, and the home has none.
        SettingsError: the home is not the night's, and there is no other online store than a file of the night's.
    """
    if settings.bundles is None:
        return None
    from model.bundle_follower import BundleFollower
    from model.shared_bundles import SharedBundles

    follower = BundleFollower(SharedBundles(settings.home, settings.bundles, attempts=2), every_s)
    follower.first()
    if not settings.redis and not (settings.home / "online.db").is_file():
        raise SettingsError(
            f"{settings.home} has no online store: without Redis it is a file in the night's home, which this one does "
            "not share. Give all processes one Redis: redis, DAT_REDIS or --redis"
        )
    return follower


def check_disk(home: Path) -> None:
    """Raise if the home's disk is nearly full.

    Raises:
        PreflightError: less than ``NEEDED`` bytes are free.
    """
    free = shutil.disk_usage(home).free
    if free < NEEDED:
        raise PreflightError(
            f"{home} has {free >> 20} MB free and {NEEDED >> 20} MB are needed; "
            "free some space or give another folder with --home"
        )


def claim_home(settings: Settings) -> None:
    """Make the home folder this dataset's, or find that it is another's: a home is one system with one log of clicks.

    Raises:
        CardError: it belongs to another dataset. OSError: it cannot be written.
    """
    settings.home.mkdir(parents=True, exist_ok=True)
    mark = settings.shared / "dataset"
    name = settings.card.name
    if mark.is_file() and mark.read_text() != name:
        raise CardError(f"{settings.shared} holds the dataset {mark.read_text()}, not {name}; give another with --home")
    mark.write_bytes(name.encode())


def check_port(port: int) -> None:
    """Raise if nothing can listen on a loopback port (0, a free one, always can).

    Raises:
        PreflightError: another process does.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            raise PreflightError(f"port {port} is in use: end what uses it, or choose another with --port") from None
