"""What the updater tells Prometheus, and whether it is alive and ready, over HTTP on this machine."""

import threading
from collections.abc import Callable, Iterable
from importlib.metadata import version
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import Counter, Gauge, Histogram, make_wsgi_app

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)

CLICKS = Counter("dat_clicks", "Clicks that a stage has folded and committed", ["stage"])
REJECTED = Counter("dat_clicks_rejected", "Records that became dead letters", ["reason"])
REPEATED = Counter("dat_clicks_repeated", "Clicks dropped because their event id came before")
UNCOUNTED = Counter("dat_events_uncounted", "Events that are no clicks by the rule of the dataset's card")
FAILED = Counter("dat_transactions_failed", "Transactions that had to be asked for or done again", ["stage"])
BATCH = Histogram("dat_batch_seconds", "Computing a batch", ["stage"], buckets=_SECONDS)
COMMIT = Histogram("dat_commit_seconds", "Committing a batch's transaction", ["stage"], buckets=_SECONDS)
FRESHNESS = Histogram(
    "dat_freshness_seconds", "From the arrival of a batch's oldest click to its commit", ["stage"], buckets=_SECONDS
)
ERRORS = Counter("dat_errors", "Errors that interrupted a member or set a record aside", ["stage", "error"])
LAG = Gauge("dat_stage_lag_records", "Records that a stage's group has yet to commit", ["stage", "partition"])
LAST_COMMIT = Gauge("dat_stage_last_commit_timestamp_seconds", "When this process last committed, or began", ["stage"])
LAST_FOLDED = Gauge("dat_last_folded_click_timestamp_seconds", "When the last click that was folded arrived", ["stage"])
LAST_ONLINE = Gauge("dat_online_last_write_timestamp_seconds", "When this process last wrote to the online store")
RESTORE = Histogram("dat_restore_seconds", "Restoring partitions", ["stage"], buckets=(0.1, 0.5, 1, 5, 10, 30, 60, 300))
ONLINE_ROWS = Counter("dat_online_rows", "Rows written to the online store")
ONLINE_FAILED = Counter("dat_online_writes_failed", "Writes that the online store refused, and that were tried again")
MARKER_OK = Gauge("dat_online_store_marker_ok", "0 while the online store has lost its rows, and they are written anew")
CHANGELOG_LOST = Gauge(
    "dat_changelog_lost_records", "Records that a published bundle needs and Kafka has deleted; looked at every trim_s"
)
REFUSED = Counter("dat_bundles_refused", "Bundles that were put into service and could not be used")
BUNDLES_OK = Gauge("dat_bundles_ok", "0 while bundles cannot be taken from the object store")
BUNDLES_OK.set(1)
BUNDLE = Gauge("dat_bundle", "1 for the bundle that is being updated", ["version"])
BUILD = Gauge("dat_build_info", "1 for the version that runs", ["version"])
BUILD.labels(version("dat-retrieval")).set(1)


class _Quiet(WSGIRequestHandler):
    def log_message(self, *_: object) -> None:
        """Not a line a scrape."""


class CannotListen(RuntimeError):
    """The address cannot be had. The message says which and why."""


def serve(host: str, port: int, alive: Callable[[], bool], ready: Callable[[], bool]) -> WSGIServer:
    """Answer ``/metrics``, ``/healthz`` and ``/readyz`` until ``.shutdown()``; port 0 takes a free one.

    Raises:
        CannotListen: the port is taken.
    """
    metrics = make_wsgi_app()

    def answer(environ: dict, start: Callable) -> Iterable[bytes]:
        checks = {"/healthz": alive, "/readyz": ready}
        path = environ["PATH_INFO"]
        if path == "/metrics":
            return metrics(environ, start)
        if path not in checks:
            start("404 Not Found", [("Content-Type", "text/plain")])
            return [b"/metrics, /healthz, /readyz\n"]
        good = checks[path]()
        start("200 OK" if good else "503 Service Unavailable", [("Content-Type", "text/plain")])
        return [b"ok\n" if good else b"not yet\n"]

    try:
        server = make_server(host, port, answer, handler_class=_Quiet)
    except (OSError, OverflowError) as error:
        raise CannotListen(f"cannot listen on {host}:{port} ({getattr(error, 'strerror', error)})") from error
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
    return server
