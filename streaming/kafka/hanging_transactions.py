"""Transactions that hang: open in a partition's log, and unknown to their coordinator.

A broker whose disk fails can forget an open transaction and keep its records. Nothing ends such a one by itself: who
reads committed records does not get past it, and the producer's next commit to that partition commits its records, too.
A stage would stand still, or count clicks twice.
"""

import logging

from kafka import TopicPartition
from kafka.admin import AbortTransactionSpec, KafkaAdminClient
from kafka.errors import AuthorizationError, UnsupportedVersionError, for_code

from model.settings.updater import UpdaterConfig

OFFSETS = "__consumer_offsets"
log = logging.getLogger(__name__)


def abort_hanging(config: UpdaterConfig, transactional_id: str) -> None:
    """Abort the transactions that earlier holders of a transactional id have left hanging.

    Call it after taking the id: that raises the epoch and ends what the coordinator knows of, so that whatever is still
    open under an earlier epoch is known to nobody.

    Raises:
        kafka.errors.KafkaError: the cluster did not answer; try again.
    """
    admin = KafkaAdminClient(**config.client)
    try:
        holder = admin.describe_transactions([transactional_id])[transactional_id]
        topics = admin.describe_topics([*config.topics.transactional, OFFSETS])
        for topic in topics:
            # Without its partitions, what hangs there would go unseen. The offsets' topic comes with the first group.
            if topic["error_code"] and topic["name"] != OFFSETS:
                raise for_code(topic["error_code"])(topic["name"])
        partitions = [
            TopicPartition(topic["name"], p["partition_index"]) for topic in topics for p in topic["partitions"]
        ]
        hanging = [
            # The broker refuses a coordinator older than the one whose mark is the partition's last of this producer.
            AbortTransactionSpec(partition, producer.producer_id, producer.producer_epoch, producer.coordinator_epoch)
            for partition, state in admin.describe_producers(partitions).items()
            for producer in state.active_producers
            if producer.producer_id == holder.producer_id
            and producer.producer_epoch < holder.producer_epoch
            and producer.current_transaction_start_offset >= 0
        ]
        for spec in hanging:
            log.warning("hanging_transaction_aborted id=%s %s", transactional_id, spec)
            admin.abort_transaction(spec)
    except (AuthorizationError, UnsupportedVersionError) as error:
        log.warning(
            "hanging_transactions_unknown id=%s error=%r: this cluster does not let the updater look for them or abort "
            "them; where a stage stands still after a broker's disk failed, use kafka-transactions.sh find-hanging and "
            "abort",
            transactional_id,
            error,
        )
    finally:
        admin.close()
