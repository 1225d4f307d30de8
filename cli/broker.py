"""``dat broker``: a local Kafka for those without a cluster, with the topics of the loop."""

import signal
import threading
from typing import Annotated

import typer

from cli.options import Home
from model.settings.settings import load_settings


def broker(
    home: Home = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="The port to listen on.")] = 9092,
    partitions: Annotated[int, typer.Option(min=1, help="Partitions of topics that do not exist yet.")] = 4,
) -> None:
    """Run a single-node Kafka broker in the home folder until stopped; Java 17 is needed, Docker is not."""
    from devstack.broker import LocalBroker
    from streaming.kafka.topics import create_topics

    stop = threading.Event()
    for sign in (signal.SIGTERM, signal.SIGINT):
        signal.signal(sign, lambda *_: stop.set())
    with LocalBroker(load_settings(home=home).home.absolute() / "kafka", port) as running:
        create_topics(running.bootstrap, partitions)
        print(f"broker at {running.bootstrap}, log in {running.log}", flush=True)
        while not stop.wait(1):
            if running.pid is None:
                raise BrokerGone(f"the broker ended; see {running.log}")


class BrokerGone(RuntimeError):
    """The broker ended by itself. The message says where its log is."""
