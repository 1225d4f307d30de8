"""What the service tells Prometheus, at ``/metrics``."""

from importlib.metadata import version

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, PlatformCollector, ProcessCollector

REGISTRY = CollectorRegistry()  # of our own: libraries fill the default one with figures of theirs
ProcessCollector(registry=REGISTRY)
PlatformCollector(registry=REGISTRY)
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

REQUESTS = Counter("dat_http_requests", "Requests", ["route", "method", "code"], registry=REGISTRY)
DURATION = Histogram(
    "dat_http_request_duration_seconds", "From a request's head to its answer's", ["route"], buckets=_SECONDS,
    registry=REGISTRY,
)  # fmt: skip
WRONG_KEYS = Counter(
    "dat_wrong_keys", "Wrong keys; unread: refused unseen after too many from their address", ["result"],
    registry=REGISTRY,
)  # fmt: skip
ANSWERS = Counter("dat_answers", "Answers", ["source", "fallback"], registry=REGISTRY)
PENDING = Gauge("dat_answers_pending", "Answers that wait for their turn", registry=REGISTRY)
HELD = Gauge("dat_answers_held", "Answers that wait for a click", registry=REGISTRY)
STORE_READ = Histogram("dat_store_read_seconds", "Reads of the online store", buckets=_SECONDS, registry=REGISTRY)
STORE_ERRORS = Counter("dat_store_errors", "Reads of the online store that failed or took too long", registry=REGISTRY)
CLICKS = Counter("dat_clicks_posted", "Clicks that came by POST", ["result"], registry=REGISTRY)
IMPRESSIONS = Counter("dat_impressions", "Impressions that were reported", ["result"], registry=REGISTRY)
STALENESS = Gauge(
    "dat_staleness_seconds", "How long the oldest click that does not show yet has waited", registry=REGISTRY
)
SEARCHABLE = Histogram(
    "dat_searchable_seconds", "From a click's arrival to its item's vector in the index", buckets=_SECONDS,
    registry=REGISTRY,
)  # fmt: skip
INDEX_LAG = Gauge("dat_index_lag_records", "Records of item vectors that the index has yet to read", registry=REGISTRY)
SET_ASIDE = Counter("dat_records_set_aside", "Records or rows that could not be applied", ["topic"], registry=REGISTRY)
THREAD_FAILURES = Counter(
    "dat_thread_failures", "Errors that a background thread began again after", ["thread"], registry=REGISTRY
)
SERVED = Gauge("dat_bundle_served", "1 for the bundle that answers", ["version"], registry=REGISTRY)
BUNDLES_OK = Gauge("dat_bundles_ok", "0 while bundles cannot be taken from the object store", registry=REGISTRY)
BUNDLES_OK.set(1)
CUT = Gauge("dat_bundle_cut_timestamp_seconds", "Up to when the bundle that answers has seen clicks", registry=REGISTRY)
BUILD = Gauge("dat_build_info", "1 for the version that runs", ["version"], registry=REGISTRY)
BUILD.labels(version("dat-retrieval")).set(1)
