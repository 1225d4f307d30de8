"""The updater answers Prometheus and the two checks, with the numbers of what it has done."""

import threading
import urllib.error
import urllib.request

import pytest
from kafka.admin import KafkaAdminClient, NewPartitions

from devstack.ports import free_port
from model.settings.updater import UpdaterConfig
from streaming import metrics
from streaming.kafka.topics import PartitionsDiffer
from streaming.stages.stage import QueryStage
from streaming.updater import run_updater
from tests.streaming.loop import eventually, produce, running, some_clicks, updater_config
from tests.tiny import tiny_bundle, tiny_store


def get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, ""


def sample(text: str, name: str) -> float:
    return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(name))


def test_a_port_that_is_taken_is_said_before_the_updater_joins_a_group(tmp_path):
    """It was an OSError, after the updater had taken the place of the one that runs."""
    first = metrics.serve("127.0.0.1", 0, lambda: True, lambda: True)
    config = UpdaterConfig(metrics_port=first.server_port, bootstrap=f"127.0.0.1:{free_port()}")
    with pytest.raises(metrics.CannotListen, match=str(first.server_port)):
        run_updater(tiny_bundle("no-port"), None, config, threading.Event())
    first.shutdown()
    first.server_close()


def test_metrics_tell_what_was_done(kafka, tmp_path):
    store, bundle = tiny_store(tmp_path, queries=9, items=12), tiny_bundle("metrics-1")
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with running(bundle, store, updater_config(kafka, metrics_port=port)):
        assert get(f"{url}/healthz")[0] == 200
        assert get(f"{url}/readyz")[0] == 200
        assert get(f"{url}/nothing")[0] == 404
        before = get(f"{url}/metrics")[1]
        produce(kafka, some_clicks(40))
        for stage in ("query", "item"):
            name = f'dat_clicks_total{{stage="{stage}"}}'
            was = sample(before, name)
            eventually(lambda name=name, was=was: sample(get(f"{url}/metrics")[1], name) - was == 40, name)
        lags = [f'partition="{kafka.topics.clicks}-0",stage="query"', 'stage="feast"']
        eventually(lambda: all(name in get(f"{url}/metrics")[1] for name in lags), "the lag is known")
        after = get(f"{url}/metrics")[1]
    assert 'dat_bundle{version="metrics-1"} 1.0' in after
    for name in (
        'dat_stage_last_commit_timestamp_seconds{stage="query"}',
        'dat_stage_last_commit_timestamp_seconds{stage="feast"}',
        "dat_commit_seconds_count",
        "dat_freshness_seconds_count",
        "dat_online_rows_total",
    ):
        assert name in after


def test_ready_says_no_while_clicks_do_not_get_through(kafka, tmp_path, monkeypatch):
    """A worker that hangs commits nothing, raises nothing and logs nothing: only Kafka's ends tell."""
    store, bundle = tiny_store(tmp_path, queries=9, items=12), tiny_bundle("metrics-2")
    hang, process = threading.Event(), QueryStage.process
    monkeypatch.setattr(QueryStage, "process", lambda self, records: hang.wait(60) and process(self, records))
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    config = updater_config(kafka, metrics_port=port, metrics_host="0.0.0.0", monitor_s=0.2, stalled_s=3)
    with running(bundle, store, config, feast_sink=False):
        produce(kafka, some_clicks(10))
        eventually(lambda: get(f"{url}/readyz")[0] == 503, "it says so")
        lag = f'dat_stage_lag_records{{partition="{kafka.topics.clicks}'
        assert sample(get(f"{url}/metrics")[1], lag) == 10
        hang.set()
        eventually(lambda: get(f"{url}/readyz")[0] == 200, "and that it is over")


def test_other_numbers_of_partitions_end_the_updater_with_a_sentence(kafka, tmp_path):
    store, bundle = tiny_store(tmp_path, queries=9, items=12), tiny_bundle("metrics-3")
    options = {"feast_sink": False}
    with (
        pytest.raises(PartitionsDiffer, match="must have the same number of partitions, and they have: .*clicks 3"),
        running(bundle, store, updater_config(kafka, monitor_s=0.1), **options) as failed,
    ):
        admin = KafkaAdminClient(**kafka.client)
        admin.create_partitions({kafka.topics.clicks: NewPartitions(3)})
        admin.close()
        eventually(lambda: bool(failed), "it ends")
    with (
        pytest.raises(PartitionsDiffer, match="must have the same number of partitions"),
        running(bundle, store, updater_config(kafka), **options),
    ):
        pass
