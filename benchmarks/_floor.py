"""The least that an answer over a socket costs, as a process: ``python -m benchmarks._floor HOME REDIS``.

One thread does it all, one request after the other: HTTP parsed by httptools, one read of Redis, the query tower, a
search of the bare Faiss lists, the ids as JSON. No framework, no batches, no filters, nothing that follows a stream.
"""

import os
import selectors
import socket
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import parse_qsl

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import httptools  # noqa: E402
import numpy as np
import redis
import typer
from feast.infra.online_stores.helpers import _mmh3

from feature_repo.store import open_store
from model.bundle_store import BundleStore
from model.settings.serving import ServingConfig
from serving.features import FeatureNames
from serving.redis_reader import RedisReader, value_of
from serving.snapshot import Snapshot


class Request:
    """What httptools tells of a request."""

    def __init__(self) -> None:
        self.url = b""

    def on_url(self, url: bytes) -> None:
        self.url += url


class Floor:
    def __init__(self, home: Path, address: str):
        store = open_store(home, address)
        self.snapshot = Snapshot.of(BundleStore(home / "bundles").load(), ServingConfig())
        self.now = np.array([self.snapshot.bundle.manifest.cut_ms])
        self.names = FeatureNames(store).query
        self.fields = [_mmh3(name) for name in self.names]
        self.columns = [name.replace(":", "__", 1) for name in self.names]
        self.key = RedisReader(store.config)._key
        host, _, port = address.rpartition(":")
        self.redis: Any = redis.Redis(host, int(port))  # its annotations know no keys of bytes
        index = self.snapshot.corpus.index
        assert index.lists is not None, "the floor is measured on a corpus with lists"
        self.lists, self.lists.faiss.nprobe = index.lists, index.probes

    def answer(self, data: bytes) -> bytes:
        request = Request()
        httptools.HttpRequestParser(request).feed_data(data)
        query = dict(parse_qsl(request.url.partition(b"?")[2].decode()))
        values = self.redis.hmget(self.key("query_id", query["query_id"]), self.fields)
        columns = {name: [value_of(value)] for name, value in zip(self.columns, values, strict=True)}
        states = self.snapshot.queries.states([query["query_id"]], columns, self.snapshot.corpus)
        vector = self.snapshot.queries.represent(states, self.now)
        scores, rows = self.lists.faiss.search(vector, int(query["n"]))
        ids = self.snapshot.corpus.ids
        pairs = zip(rows[0].tolist(), scores[0].tolist(), strict=True)
        body = ",".join(f'{{"item_id":"{ids[row]}","score":{score:.6f}}}' for row, score in pairs)
        return f"HTTP/1.1 200 OK\r\ncontent-length: {len(body) + 2}\r\n\r\n[{body}]".encode()

    def serve(self, listening: socket.socket) -> None:
        selector = selectors.DefaultSelector()
        selector.register(listening, selectors.EVENT_READ)
        while True:
            for event, _ in selector.select():
                ready = event.fileobj
                assert isinstance(ready, socket.socket)
                if ready is listening:
                    connection, _ = listening.accept()
                    selector.register(connection, selectors.EVENT_READ)
                elif data := ready.recv(65_536):
                    ready.sendall(self.answer(data))
                else:
                    selector.unregister(ready)
                    ready.close()


def main(
    home: Annotated[Path, typer.Argument(help="A home with a bundle.")],
    address: Annotated[str, typer.Argument(metavar="REDIS", help="host:port of the Redis that has its queries.")],
) -> None:
    """Serve until it is ended."""
    floor = Floor(home, address)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        print(f"floor at http://127.0.0.1:{listening.getsockname()[1]}", flush=True)
        floor.serve(listening)


if __name__ == "__main__":
    typer.run(main)
