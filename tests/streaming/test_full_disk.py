"""The broker's disk takes no more: what it acknowledged is not lost, and nothing counts twice once there is room."""

import contextlib
import resource

import pytest
from kafka.errors import KafkaError

from cli.broker import LocalBroker
from feature_repo.click_event import Click
from streaming.clicks import ClickWriter
from streaming.clients import create_topics
from streaming.config import UpdaterConfig
from streaming.topics import ITEM_VECTORS, QUERY_VECTORS
from tests.conftest import PARTITIONS
from tests.streaming.loop import eventually, folds, produce, running, some_clicks, truth
from tests.tiny import tiny_bundle, tiny_store


def send(bootstrap: str, clicks: list[Click]) -> set[str]:
    """Write clicks to a broker that may end meanwhile; the event ids of those that it acknowledged."""
    writer, done = ClickWriter(bootstrap), set()
    for click in clicks:
        try:
            writer.send(click).get(5)
        except KafkaError:
            break
        done.add(click.event_id)
    with contextlib.suppress(KafkaError):
        writer.close()
    return done


def fill_disk(broker: LocalBroker, room: int) -> None:
    """From now on no file of the broker grows beyond the largest one of a log by more than ``room`` bytes."""
    largest = max(path.stat().st_size for path in (broker.folder / "data").rglob("*.log"))
    resource.prlimit(broker.pid, resource.RLIMIT_FSIZE, (largest + room, largest + room))


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="only Linux can limit another process's files")
def test_a_full_disk_of_the_broker_loses_and_doubles_nothing(tmp_path):
    store, bundle, clicks = tiny_store(tmp_path / "home", queries=9, items=12), tiny_bundle("full"), some_clicks(2_000)
    with LocalBroker(tmp_path / "kafka") as broker:
        create_topics(broker.bootstrap, PARTITIONS)
        with running(bundle, store, UpdaterConfig(bootstrap=broker.bootstrap), feast_sink=False):
            produce(broker.bootstrap, clicks[:100])
            folds(broker.bootstrap, QUERY_VECTORS, bundle, truth(clicks[:100])[0], "folded")
            fill_disk(broker, room=20_000)
            done = send(broker.bootstrap, clicks[100:])
            assert len(done) < 1_900, "the disk was to be full before all were written"
            eventually(lambda: broker.pid is None, "Kafka ends when it cannot write", 60)
            broker.start()  # there is room again
            produce(broker.bootstrap, [click for click in clicks[100:] if click.event_id not in done])
            by_query, by_item = truth(clicks)
            folds(broker.bootstrap, QUERY_VECTORS, bundle, by_query, "every query's clicks", 90)
            folds(broker.bootstrap, ITEM_VECTORS, bundle, by_item, "every item's clicks", 90)
