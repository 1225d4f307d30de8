"""What the updater tells Prometheus, and whether it is alive and ready, over HTTP on this machine."""

import threading
from collections.abc import Callable, Iterable
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import Counter, Gauge, Histogram, make_wsgi_app

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

CLICKS = Counter("dat_clicks", "Clicks that a stage has folded and committed", ["stage"])
REJECTED = Counter("dat_clicks_rejected", "Records that are no click, hence dead letters")
REPEATED = Counter("dat_clicks_repeated", "Clicks dropped because their event id came before")
FAILED = Counter("dat_transactions_failed", "Transactions that had to be asked for or done again", ["stage"])
BATCH = Histogram("dat_batch_seconds", "Computing a batch", ["stage"], buckets=_SECONDS)
COMMIT = Histogram("dat_commit_seconds", "Committing a batch's transaction", ["stage"], buckets=_SECONDS)
FRESHNESS = Histogram(
    "dat_freshness_seconds", "From the arrival of a batch's oldest click to its commit", ["stage"], buckets=_SECONDS
)
LAG = Gauge("dat_lag_records", "Records of its topic that a stage has yet to read", ["stage"])
ONLINE_ROWS = Counter("dat_online_rows", "Rows written to the online store")
ONLINE_FAILED = Counter("dat_online_writes_failed", "Writes that the online store refused, and that were tried again")
REFUSED = Counter("dat_bundles_refused", "Bundles that were put into service and could not be used")
BUNDLE = Gauge("dat_bundle", "1 for the bundle that is being updated", ["version"])


class _Quiet(WSGIRequestHandler):
    def log_message(self, *_: object) -> None:
        """Not a line a scrape."""


def serve(port: int, alive: Callable[[], bool], ready: Callable[[], bool]) -> WSGIServer:
    """Answer ``/metrics``, ``/healthz`` and ``/readyz`` on 127.0.0.1 until ``.shutdown()``; port 0 takes a free one.

    Raises:
        OSError: the port is taken.
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

    server = make_server("127.0.0.1", port, answer, handler_class=_Quiet)
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
    return server
