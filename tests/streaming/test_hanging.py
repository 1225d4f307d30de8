"""A transaction that its coordinator has forgotten, as after a broker's disk failed, holds up and doubles nothing."""

import shutil

import pytest
from kafka import TopicPartition
from kafka.admin import KafkaAdminClient

from cli.broker import LocalBroker
from streaming.changelog import read_committed
from streaming.clients import close_quietly, create_topics, free_consumer, transactional_producer
from streaming.config import UpdaterConfig
from streaming.topics import ITEM_VECTORS, SIGNALS_TOPIC
from streaming.transactions import Message, Transactions
from tests.streaming.loop import eventually

PARTITION = TopicPartition(SIGNALS_TOPIC, 0)


def readable(config: UpdaterConfig) -> list[bytes]:
    """What a reader of committed records gets of the partition within two seconds."""
    consumer = free_consumer(config)
    try:
        consumer.assign([PARTITION])
        consumer.seek_to_beginning(PARTITION)
        return [record.value for _ in range(20) for batch in consumer.poll(100).values() for record in batch]
    finally:
        close_quietly(consumer)


def state_of(transactional_id: str, bootstrap: str) -> str:
    """What the coordinator says of a transactional id."""
    admin = KafkaAdminClient(bootstrap_servers=bootstrap)
    try:
        return admin.describe_transactions([transactional_id])[transactional_id].state
    finally:
        admin.close()


def test_taking_a_transactional_id_ends_the_transaction_that_its_coordinator_has_forgotten(tmp_path):
    with LocalBroker(tmp_path / "kafka") as broker:
        create_topics(broker.bootstrap, 1)
        config, data = UpdaterConfig(bootstrap=broker.bootstrap), tmp_path / "kafka" / "data"
        producer = transactional_producer(config, "worker")
        producer.init_transactions()
        producer.begin_transaction()
        producer.send(SIGNALS_TOPIC, value=b"before", partition=0)
        producer.commit_transaction()
        # Kafka answers when a commit is prepared; a coordinator that remembers only that commits what is open by then.
        eventually(lambda: state_of("worker", broker.bootstrap) == "CompleteCommit", "the commit is complete")
        broker.stop()
        remembered = {
            path.name: shutil.copytree(path, tmp_path / path.name) for path in data.glob("__transaction_state-*")
        }
        broker.start()
        producer.begin_transaction()
        producer.send(SIGNALS_TOPIC, value=b"forgotten", partition=0).get(10)
        broker.stop()
        close_quietly(producer)
        for name, copy in remembered.items():
            shutil.rmtree(data / name)
            shutil.copytree(copy, data / name)
        broker.start()

        transactions = Transactions(config, "worker")
        transactions.open()
        transactions.commit([Message(SIGNALS_TOPIC, 0, b"after")], {}, "group")
        transactions.close()
        assert readable(config) == [b"before", b"after"], "the next commit would have committed what was forgotten, too"


def test_a_restore_that_an_open_transaction_holds_up_ends_by_saying_where_it_stands(bootstrap, monkeypatch):
    monkeypatch.setattr("streaming.changelog._STALLED_S", 1)
    config, partition = UpdaterConfig(bootstrap=bootstrap), TopicPartition(ITEM_VECTORS, 0)
    producer = transactional_producer(config, "somebody else")
    producer.init_transactions()
    producer.begin_transaction()
    producer.send(ITEM_VECTORS, value=b"open", partition=0).get(10)
    with pytest.raises(TimeoutError, match="item-vectors-0 at 0 of 1; if a transaction hangs there"):
        list(read_committed(config, [partition], "a bundle"))
    producer.abort_transaction()
    producer.close()
    assert list(read_committed(config, [partition], "a bundle")) == []
