"""A server that speaks S3's protocol, with a bucket of its own for each test."""

import os
import socket
from collections.abc import Callable, Iterator
from itertools import count

import boto3
import pytest
from moto.server import ThreadedMotoServer

from feature_repo.object_store import ObjectStore

_NUMBER = count()
_ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "who",
    "AWS_SECRET_ACCESS_KEY": "why",
    "AWS_DEFAULT_REGION": "eu-west-3",
    "AWS_EC2_METADATA_DISABLED": "true",
}


class Killed(BaseException):
    """A process that is killed between two requests to a store."""


def kill_after(monkeypatch: pytest.MonkeyPatch, *requests: str) -> Callable[[int], None]:
    """Have a store end in :class:`Killed` after so many requests of some kinds, as said last; -1: never."""
    calls = {"left": -1}

    def at_most(method: Callable) -> Callable:
        def call(*arguments):
            if not calls["left"]:
                raise Killed
            calls["left"] -= 1
            return method(*arguments)

        return call

    for name in requests:
        monkeypatch.setattr(ObjectStore, name, at_most(getattr(ObjectStore, name)))
    return lambda left: calls.update(left=left)


class Bucket:
    """A bucket that its store can lose sight of: a test stops the server and starts it again, with what it has."""

    def __init__(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.name = f"bucket-{next(_NUMBER)}"
        self.url = f"s3://{self.name}/bundles"
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self.start()
        self.client = boto3.client("s3", endpoint_url=self.endpoint)
        self.client.create_bucket(Bucket=self.name, CreateBucketConfiguration={"LocationConstraint": "eu-west-3"})

    def start(self) -> None:
        self._server = ThreadedMotoServer("127.0.0.1", port=self.port, verbose=False)
        self._server.start()

    def stop(self) -> None:
        self._server.stop()

    @property
    def keys(self) -> set[str]:
        """Names of the objects that hold something."""
        listed = self.client.list_objects_v2(Bucket=self.name).get("Contents", [])
        return {one["Key"].removeprefix("bundles/") for one in listed if not one["Key"].endswith("/")}

    def put(self, name: str, data: bytes) -> None:
        self.client.put_object(Bucket=self.name, Key=f"bundles/{name}", Body=data)

    def get(self, name: str) -> bytes:
        return self.client.get_object(Bucket=self.name, Key=f"bundles/{name}")["Body"].read()


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in _ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    made = Bucket()
    monkeypatch.setenv("AWS_ENDPOINT_URL", made.endpoint)
    yield made
    made.stop()
