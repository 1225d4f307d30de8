"""The broker's disk takes no more: what it acknowledged is not lost, and nothing counts twice once there is room."""

import contextlib
import resource

import pytest
from kafka.errors import KafkaError

from devstack.broker import LocalBroker
from model.click import Click
from model.settings.updater import KafkaConnection
from streaming.clicks import ClickWriter
from tests.conftest import fresh_topics
from tests.streaming.loop import eventually, folds, produce, running, some_clicks, truth, updater_config
from tests.tiny import tiny_bundle, tiny_store


def send(broker: LocalBroker, kafka: KafkaConnection, clicks: list[Click]) -> set[str]:
    """Write clicks to a broker until it ends; the event ids of those that it acknowledged, however late."""
    writer, done = ClickWriter(kafka), set()
    for click in clicks:
        sent = writer.send(click)
        while not sent.is_done and broker.pid is not None:
            with contextlib.suppress(KafkaError):
                sent.get(1)
        if not sent.succeeded():
            break
        done.add(click.event_id)
    with contextlib.suppress(KafkaError):
        writer.close()
    return done


def fill_disk(broker: LocalBroker, room: int) -> None:
    """From now on no file of the broker grows beyond the largest one of a log by more than ``room`` bytes."""
    largest = max(path.stat().st_size for path in (broker.folder / "data").rglob("*.log"))
    resource.prlimit(broker.pid, resource.RLIMIT_FSIZE, (largest + room, largest + room))


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="only Linux can limit another process's files")
def test_a_full_disk_of_the_broker_loses_and_doubles_nothing(spare_broker, tmp_path):
    store, bundle, clicks = tiny_store(tmp_path / "home", queries=9, items=12), tiny_bundle("full"), some_clicks(2_000)
    kafka = fresh_topics(spare_broker)
    with running(bundle, store, updater_config(kafka), feast_sink=False):
        produce(kafka, clicks[:100])
        folds(kafka, "query", bundle, truth(clicks[:100])[0], "folded")
        fill_disk(spare_broker, room=20_000)
        done = send(spare_broker, kafka, clicks[100:])
        assert len(done) < 1_900, "the disk was to be full before all were written"
        eventually(lambda: spare_broker.pid is None, "Kafka ends when it cannot write", 60)
        spare_broker.start()  # there is room again
        produce(kafka, [click for click in clicks[100:] if click.event_id not in done])
        by_query, by_item = truth(clicks)
        folds(kafka, "query", bundle, by_query, "every query's clicks", 90)
        folds(kafka, "item", bundle, by_item, "every item's clicks", 90)
