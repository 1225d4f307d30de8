"""Dead letters: what there is, and what has become a click since they were set aside, back to the stream, once each."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

from kafka import TopicPartition
from kafka.structs import ConsumerGroupMetadata
from pydantic import ValidationError

from model.click import Click
from model.partitioner import partitions_of
from model.settings.updater import UpdaterConfig
from streaming.kafka.changelog import read_range
from streaming.kafka.clients import close_quietly, free_consumer
from streaming.kafka.clients import partitions_of as topic_partitions
from streaming.kafka.offsets import committed
from streaming.kafka.topics import described
from streaming.kafka.transactions import Message, Transactions

_BATCH = 1_000


def kinds(config: UpdaterConfig) -> Counter[str]:
    """How many dead letters there are of each kind."""
    letters = (letter for batch in _letters(config, {}) for letter in batch)
    return Counter(_header(letter, "kind") for letter in letters)


def drain(config: UpdaterConfig) -> tuple[int, int]:
    """Send the dead letters that are clicks by now to ``clicks``, keyed and placed as they must be.

    A letter's click and the mark of how far this went are one transaction, and another bundle's copy of the same
    record is not sent again.

    Returns:
        How many were sent, and how many letters were no clicks still.
    """
    group = f"{config.prefix}dat-drain"
    start = committed(config, [group])[group]
    count = described(config, [config.topics.clicks])[config.topics.clicks][1]
    transactions = Transactions(config, f"{group}-{config.instance}")
    sent = left = 0
    seen: set[tuple[str, ...]] = set()
    try:
        for batch in _letters(config, start):
            messages = []
            for letter in batch:
                place = tuple(_header(letter, name) for name in ("topic", "partition", "offset"))
                click = _click(letter) if place[0] == config.topics.clicks else None
                left += click is None
                if click is None or place in seen:
                    continue
                seen.add(place)
                partition = int(partitions_of([click.query_id], count, config.partitioner)[0])
                value = click.model_dump_json(exclude_none=True).encode()
                messages.append(Message(config.topics.clicks, partition, value, click.query_id.encode()))
            end = {TopicPartition(batch[-1].topic, batch[-1].partition): batch[-1].offset + 1}
            transactions.commit(messages, end, ConsumerGroupMetadata(group))
            sent += len(messages)
    finally:
        transactions.close()
    return sent, left


def _letters(config: UpdaterConfig, start: dict[TopicPartition, int]) -> Iterator[list[Any]]:
    """The dead letters from some offsets on, in batches of one partition each."""
    consumer = free_consumer(config)
    try:
        partitions = topic_partitions(consumer, config.topics.dead_letters)
        ends = consumer.end_offsets(partitions)
    finally:
        close_quietly(consumer)
    for partition in partitions:
        for records in read_range(config, partition, start.get(partition, 0), ends[partition]):
            for first in range(0, len(records), _BATCH):
                yield records[first : first + _BATCH]


def _header(letter: Any, name: str) -> str:
    return dict(letter.headers).get(name, b"").decode()


def _click(letter: Any) -> Click | None:
    try:
        return Click.model_validate_json(letter.value or b"")
    except ValidationError:
        return None
