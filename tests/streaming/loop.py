"""Running the updater in a test, and reading what it has committed."""

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator

import numpy as np
from kafka import TopicPartition
from kafka.admin import KafkaAdminClient

from model.bundle import Bundle
from model.click import Click
from model.settings.updater import KafkaConnection, UpdaterConfig
from streaming.clicks import ClickWriter
from streaming.kafka.changelog import read_committed
from streaming.kafka.clients import close_quietly, free_consumer
from streaming.updater import run_updater
from tests.conftest import PARTITIONS
from tests.tiny import CUT_MS


def eventually(true: Callable[[], bool], what: str, timeout_s: float = 60) -> None:
    """Wait for something to come true, or fail."""
    deadline, held_up = time.monotonic() + timeout_s, None
    while True:
        try:
            if true():
                return
        except TimeoutError as error:  # a read that an open transaction held up: the next may get through
            held_up = error
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s} s: {what}") from held_up
        time.sleep(0.02)


@contextlib.contextmanager
def running(bundle: Bundle, store, config: UpdaterConfig, **options) -> Iterator[list[Exception]]:
    """The updater in a thread, from ready to stopped; what it raises is in the list, and raised in the end."""
    stop, ready, failed = threading.Event(), threading.Event(), []

    def run() -> None:
        try:
            run_updater(bundle, store, config, stop, ready=ready.set, **options)
        except Exception as error:  # raised again below
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        eventually(lambda: ready.is_set() or bool(failed), "ready")
        yield failed
    finally:
        stop.set()
        thread.join()
    if failed:
        raise failed[0]


def some_clicks(
    count: int, queries: int = 6, items: int = 9, new: int = 3, seed: int = 1, start: int = 0
) -> list[Click]:
    """Clicks in order of time on known ids and ``new`` unknown ones a side; numbered from ``start``."""
    rng = np.random.default_rng(seed)
    q, i = rng.integers(0, queries + new, count), rng.integers(0, items + new, count)
    return [
        Click(event_id=f"e{start + k}", query_id=f"q{q[k]}", item_id=f"i{i[k]}", event_time=CUT_MS + 1000 * (start + k))
        for k in range(count)
    ]


def updater_config(kafka: KafkaConnection, **settings) -> UpdaterConfig:
    """An updater's settings on a cluster."""
    return UpdaterConfig(**kafka.model_dump(include=set(KafkaConnection.model_fields)), **settings)


def produce(kafka: KafkaConnection, clicks: list[Click]) -> None:
    """Write clicks, in order, all acknowledged."""
    writer = ClickWriter(kafka)
    futures = [writer.send(click) for click in clicks]
    writer.flush()
    for future in futures:
        future.get(10)
    writer.close()


def committed(kafka: KafkaConnection, side: str, bundle: Bundle) -> dict[str, dict]:
    """The last committed row of each id of a side's changelog."""
    topic = kafka.topics.query_vectors if side == "query" else kafka.topics.item_vectors
    partitions = [TopicPartition(topic, p) for p in range(PARTITIONS)]
    last = {}
    try:
        for change in read_committed(kafka, partitions, bundle.version):
            last.update({row["id"]: row for row in change.rows.to_pylist()})
    except TimeoutError as error:
        error.add_note(producers_of(kafka, partitions))
        raise
    return last


def producers_of(kafka: KafkaConnection, partitions: list[TopicPartition]) -> str:
    """Who writes to some partitions, with their open transactions, and what the coordinators know: for a failure."""
    admin = KafkaAdminClient(**kafka.client)
    try:
        known = [listing for listings in admin.list_transactions().values() for listing in listings]
        return f"{admin.describe_producers(partitions)}; {known}"
    finally:
        admin.close()


def folded(kafka: KafkaConnection, side: str, bundle: Bundle) -> Counter:
    """How many clicks have been folded into each id since the bundle's cut."""
    table = bundle.queries if side == "query" else bundle.items
    before = dict(zip(table.ids, table.update_count.tolist(), strict=True))
    return Counter({key: row["folded"] - before.get(key, 0) for key, row in committed(kafka, side, bundle).items()})


def folds(
    kafka: KafkaConnection, side: str, bundle: Bundle, expected: Counter, what: str, timeout_s: float = 30
) -> None:
    """Wait for a side's changelog to have folded so many clicks into each id, or fail and say how far it came."""
    try:
        eventually(lambda: folded(kafka, side, bundle) == expected, what, timeout_s)
    except AssertionError as error:
        counts = folded(kafka, side, bundle)
        raise AssertionError(f"{error}; too few: {expected - counts}, too many: {counts - expected}") from error


def truth(clicks: list[Click]) -> tuple[Counter, Counter]:
    """Clicks by query, and by item."""
    return Counter(click.query_id for click in clicks), Counter(click.item_id for click in clicks)


def dead_letters(kafka: KafkaConnection) -> list:
    """The records of the dead-letter topic."""
    consumer = free_consumer(kafka)
    try:
        partition = TopicPartition(kafka.topics.dead_letters, 0)
        consumer.assign([partition])
        consumer.seek_to_beginning(partition)
        end, records = consumer.end_offsets([partition])[partition], []
        while consumer.position(partition) < end:
            for batch in consumer.poll(timeout_ms=100).values():
                records += batch
        return records
    finally:
        close_quietly(consumer)
