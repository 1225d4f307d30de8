"""Deleting records of internal topics that no published bundle needs any more: Kafka's retention is off there."""

import logging

from kafka import TopicPartition
from kafka.admin import KafkaAdminClient
from kafka.errors import AuthorizationError

from model.settings.updater import KafkaConnection
from streaming import metrics
from streaming.kafka.offsets import Offsets, committed, keep_start, start_group
from streaming.kafka.topics import internal

log = logging.getLogger(__name__)


def needed_from(connection: KafkaConnection, versions: list[str]) -> Offsets:
    """From which offset on some bundles need each partition of the internal topics; nothing where it is not known."""
    starts = committed(connection, [start_group(connection, version) for version in versions])
    known = [offsets for offsets in starts.values() if offsets]  # a bundle that never worked needs nothing yet
    partitions = set.intersection(*map(set, known)) if known else set()
    return {partition: min(offsets[partition] for offsets in known) for partition in partitions}


def trim(connection: KafkaConnection, versions: list[str]) -> Offsets:
    """Delete what lies before the rows of all bundles that are kept; returns the new beginnings.

    Raises:
        kafka.errors.KafkaError: the cluster did not answer.
    """
    for version in versions:
        keep_start(connection, version)
    topics = internal(connection.topics)
    begin: dict[TopicPartition, int] = {
        p: offset for p, offset in needed_from(connection, versions).items() if p.topic in topics
    }
    admin = KafkaAdminClient(**connection.client)
    try:
        if begin:
            now = {p: done["low_watermark"] for p, done in admin.delete_records(begin).items()}
            lost = {p: low - begin[p] for p, low in now.items() if low > begin[p]}
            metrics.CHANGELOG_LOST.set(sum(lost.values()))
            if lost:
                log.error("changelog_lost records=%s: the topics must not have retention", lost)
    except AuthorizationError as error:
        log.warning("trim_refused error=%r: without the right DELETE on %s they grow without end", error, topics)
        return {}
    finally:
        admin.close()
    return {partition: offset for partition, offset in begin.items() if offset}
