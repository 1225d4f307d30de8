"""What the service tells Prometheus, at ``/metrics``."""

from prometheus_client import Counter, Gauge, Histogram

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

ANSWER = Histogram("dat_answer_seconds", "From a question's arrival to its answer", ["source"], buckets=_SECONDS)
REFUSED = Counter("dat_questions_refused", "Questions refused because too many were waiting")
SEARCHABLE = Histogram(
    "dat_searchable_seconds", "From a click's arrival to its item's vector in the index", buckets=_SECONDS
)
INDEX_LAG = Gauge("dat_index_lag_records", "Records of item vectors that the index has yet to read")
SERVED = Gauge("dat_bundle_served", "1 for the bundle that answers", ["version"])
