"""The updater answers Prometheus and the two checks, with the numbers of what it has done."""

import socket
import urllib.error
import urllib.request

from streaming.config import UpdaterConfig
from tests.streaming.loop import eventually, produce, running, some_clicks
from tests.tiny import tiny_bundle, tiny_store


def get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, ""


def sample(text: str, name: str) -> float:
    return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(name))


def test_metrics_tell_what_was_done(bootstrap, tmp_path):
    store, bundle = tiny_store(tmp_path, queries=9, items=12), tiny_bundle("metrics-1")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    with running(bundle, store, UpdaterConfig(bootstrap=bootstrap, metrics_port=port)):
        assert get(f"{url}/healthz")[0] == 200
        assert get(f"{url}/readyz")[0] == 200
        assert get(f"{url}/nothing")[0] == 404
        before = get(f"{url}/metrics")[1]
        produce(bootstrap, some_clicks(40))
        for stage in ("query", "item"):
            name = f'dat_clicks_total{{stage="{stage}"}}'
            was = sample(before, name)
            eventually(lambda name=name, was=was: sample(get(f"{url}/metrics")[1], name) - was == 40, name)
        after = get(f"{url}/metrics")[1]
    assert 'dat_bundle{version="metrics-1"} 1.0' in after
    for name in ("dat_lag_records", "dat_commit_seconds_count", "dat_freshness_seconds_count", "dat_online_rows_total"):
        assert name in after
