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
import uvicorn
from kafka import KafkaProducer

from serving.api import create_app
from serving.config import ServingConfig
from serving.service import Service
from streaming.clients import create_topics
from streaming.config import KafkaConnection, UpdaterConfig
from streaming.topics import ITEM_STATE, ITEM_VECTORS, pack
from tests.conftest import PARTITIONS
from tests.streaming.loop import running as updater
from tests.tiny import tiny_bundle, tiny_store


@contextmanager
def http(app) -> Iterator[str]:
    """The base URL of an application that a real server serves on a free port."""
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning"))
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
    bootstrap: str
    url: str
    client: httpx.Client

    def publish(self, rows: pa.RecordBatch, bundle: str | None = None) -> None:
        self.producer.send(ITEM_VECTORS, pack(rows, bundle or self.bundle.version)).get(10)

    def wait(self, condition, timeout_s: float = 10) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline, "not within the time"
            time.sleep(0.005)


@contextmanager
def serve_http(service: Service, store, bundle, bootstrap: str) -> Iterator[Running]:
    """A service behind a real server, from ready to closed."""
    producer = KafkaProducer(bootstrap_servers=bootstrap)
    with http(create_app(service)) as url, httpx.Client(base_url=url, timeout=30) as client:
        assert service.follower.wait_caught_up(20)
        yield Running(service, store, producer, bundle, bootstrap, url, client)
    producer.close()


@pytest.fixture(scope="module")
def running(broker, tmp_path_factory) -> Iterator[Running]:
    """One service for a module, which ends with it."""
    home = tmp_path_factory.mktemp("home")
    create_topics(broker.bootstrap, PARTITIONS)
    # A version of its own: what other modules left on the topics is of other bundles.
    bundle, store = tiny_bundle(f"tiny-{home.name}", queries=6, items=60), tiny_store(home, queries=8, items=60)
    service = Service(bundle, store, KafkaConnection(bootstrap=broker.bootstrap), home, ServingConfig())
    with serve_http(service, store, bundle, broker.bootstrap) as serving:
        yield serving


@pytest.fixture
def loop(bootstrap, tmp_path):
    """The service and the updater of one bundle."""
    bundle, store = tiny_bundle(queries=6, items=60), tiny_store(tmp_path, queries=8, items=60)
    config = UpdaterConfig(bootstrap=bootstrap)
    service = Service(bundle, store, config, tmp_path, ServingConfig())
    with updater(bundle, store, config), serve_http(service, store, bundle, bootstrap) as serving:
        yield serving
