"""A service over a tiny bundle, a real broker and a real Feast store."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import httpx
import numpy as np
import pyarrow as pa
import pytest
from kafka import KafkaProducer

from model.settings.serving import ServingConfig
from model.settings.updater import KafkaConnection
from serving.http.server import Server
from serving.service import Service
from streaming.kafka.records import ITEM_STATE, pack
from tests.conftest import fresh_topics
from tests.streaming.loop import running as updater
from tests.streaming.loop import updater_config
from tests.tiny import tiny_bundle, tiny_store

PATIENT = ServingConfig(store_timeout_ms=5_000)
"""On a machine that tests keep busy a read may take longer than an answer would wait for it."""


@contextmanager
def http(service: Service, hosts: tuple[str, ...] = ()) -> Iterator[str]:
    """The base URL of a service that the real server serves on a free port."""
    server = Server(service, hosts, host="127.0.0.1", port=0)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
        assert thread.is_alive()
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join(15)


def item_rows(
    ids: list[str], vectors: np.ndarray, clicks: int = 1, last_click: int = 1_700_000_100_000, half_lives: int = 3
):
    """Rows of the item stage's changelog."""
    n = len(ids)
    return pa.RecordBatch.from_arrays(
        [
            pa.array(ids, pa.string()),
            pa.array([[0.0]] * n, pa.list_(pa.float32())),
            pa.array([clicks] * n, pa.int64()),
            pa.array([clicks] * n, pa.int64()),
            pa.array([[float(clicks)] * half_lives] * n, pa.list_(pa.float32())),
            pa.array([last_click] * n, pa.int64()),
            pa.array(vectors.astype(np.float32).tolist(), pa.list_(pa.float32())),
        ],
        schema=ITEM_STATE,
    )


@dataclass
class Running:
    service: Service
    store: object
    producer: KafkaProducer
    bundle: object
    kafka: KafkaConnection
    url: str
    client: httpx.Client

    def publish(self, rows: pa.RecordBatch, bundle: str | None = None) -> None:
        self.producer.send(self.kafka.topics.item_vectors, pack(rows, bundle or self.bundle.version)).get(10)

    def wait(self, condition, timeout_s: float = 60) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline, "not within the time"
            time.sleep(0.005)


@contextmanager
def serve_http(
    service: Service, store, bundle, kafka: KafkaConnection, hosts: tuple[str, ...] = ()
) -> Iterator[Running]:
    """A service behind a real server, from ready to closed."""
    producer = KafkaProducer(**kafka.client)
    with http(service, hosts) as url, httpx.Client(base_url=url, timeout=30) as client:
        assert service.consumer.wait_caught_up(60)
        yield Running(service, store, producer, bundle, kafka, url, client)
    producer.close()


@pytest.fixture(scope="module")
def running(broker, tmp_path_factory) -> Iterator[Running]:
    """One service for a module, which ends with it."""
    home, kafka = tmp_path_factory.mktemp("home"), fresh_topics(broker)
    # The catalogue knows queries and items that came after the bundle: q6, q7, i60 … i69.
    bundle, store = tiny_bundle(queries=6, items=60), tiny_store(home, queries=8, items=70)
    service = Service(bundle, store, kafka, home, PATIENT)
    with serve_http(service, store, bundle, kafka) as serving:
        yield serving


@pytest.fixture
def loop(kafka, tmp_path):
    """The service and the updater of one bundle."""
    bundle, store = tiny_bundle(queries=6, items=60), tiny_store(tmp_path, queries=8, items=70)
    config = updater_config(kafka)
    service = Service(bundle, store, config, tmp_path, PATIENT)
    with updater(bundle, store, config), serve_http(service, store, bundle, kafka) as serving:
        yield serving
