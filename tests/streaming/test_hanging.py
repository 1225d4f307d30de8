"""A transaction that its coordinator has forgotten, as after a broker's disk failed, holds up and doubles nothing."""

import shutil

import pytest
from kafka import TopicPartition
from kafka.admin import KafkaAdminClient

from model.settings.updater import KafkaConnection, UpdaterConfig
from streaming.kafka.changelog import read_committed
from streaming.kafka.clients import close_quietly, free_consumer, transactional_producer
from streaming.kafka.transactions import Message, Transactions
from tests.conftest import fresh_topics
from tests.streaming.loop import eventually, updater_config


def readable(config: UpdaterConfig, partition: TopicPartition) -> list[bytes]:
    """What a reader of committed records gets of the partition within two seconds."""
    consumer = free_consumer(config)
    try:
        consumer.assign([partition])
        consumer.seek_to_beginning(partition)
        return [record.value for _ in range(20) for batch in consumer.poll(100).values() for record in batch]
    finally:
        close_quietly(consumer)


def state_of(transactional_id: str, kafka: KafkaConnection) -> str:
    """What the coordinator says of a transactional id."""
    admin = KafkaAdminClient(**kafka.client)
    try:
        return admin.describe_transactions([transactional_id])[transactional_id].state
    finally:
        admin.close()


@pytest.mark.slow
def test_taking_a_transactional_id_ends_the_transaction_that_its_coordinator_has_forgotten(local_broker, tmp_path):
    with local_broker() as broker:
        kafka = fresh_topics(broker, partitions=1)
        signals = TopicPartition(kafka.topics.item_signals, 0)
        config, data = updater_config(kafka), tmp_path / "kafka" / "data"
        producer = transactional_producer(config, "worker")
        producer.init_transactions()
        producer.begin_transaction()
        producer.send(signals.topic, value=b"before", partition=0)
        producer.commit_transaction()
        # Kafka answers when a commit is prepared; a coordinator that remembers only that commits what is open by then.
        eventually(lambda: state_of("worker", kafka) == "CompleteCommit", "the commit is complete")
        broker.stop()
        remembered = {
            path.name: shutil.copytree(path, tmp_path / path.name) for path in data.glob("__transaction_state-*")
        }
        broker.start()
        producer.begin_transaction()
        producer.send(signals.topic, value=b"forgotten", partition=0).get(10)
        broker.stop()
        close_quietly(producer)
        for name, copy in remembered.items():
            shutil.rmtree(data / name)
            shutil.copytree(copy, data / name)
        broker.start()

        transactions = Transactions(config, "worker")
        transactions.open()
        transactions.commit([Message(signals.topic, 0, b"after")], {}, "group")
        transactions.close()
        assert readable(config, signals) == [b"before", b"after"], (
            "the next commit would have committed what was forgotten, too"
        )


def test_a_restore_that_an_open_transaction_holds_up_ends_by_saying_where_it_stands(kafka, monkeypatch):
    monkeypatch.setattr("streaming.kafka.changelog._STALLED_S", 1)
    config, partition = updater_config(kafka), TopicPartition(kafka.topics.item_vectors, 0)
    producer = transactional_producer(config, "somebody else")
    producer.init_transactions()
    producer.begin_transaction()
    producer.send(partition.topic, value=b"open", partition=0).get(10)
    with pytest.raises(TimeoutError, match="item-vectors-0 at 0 of 1; if a transaction hangs there"):
        list(read_committed(config, [partition], "a bundle"))
    producer.abort_transaction()
    producer.close()
    assert list(read_committed(config, [partition], "a bundle")) == []
