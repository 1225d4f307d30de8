"""The topics of the loop: that they exist, with the settings and the numbers of partitions that the loop needs."""

import logging

from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient
from kafka.errors import AuthorizationError, NoError, TopicAlreadyExistsError, for_code

from model.settings.updater import KafkaConnection
from model.topics import Topics

log = logging.getLogger(__name__)


def described(connection: KafkaConnection, topics: list[str]) -> dict[str, tuple[str, int]]:
    """Kafka's id of some topics, and how many partitions they have; nothing of those that do not exist.

    Raises:
        kafka.errors.KafkaError: the cluster did not answer.
    """
    admin = KafkaAdminClient(**connection.client)
    try:
        answer = admin.describe_topics(topics)
    finally:
        admin.close()
    return {
        topic["name"]: (str(topic["topic_id"]), len(topic["partitions"])) for topic in answer if topic["partitions"]
    }


class PartitionsDiffer(RuntimeError):
    """The topics of the loop do not have the same number of partitions. The message says which has how many."""


def same_partitions(connection: KafkaConnection) -> dict[str, tuple[str, int]]:
    """The topics of the loop, as :func:`described`: partition p of a changelog belongs to partition p of its input.

    Raises:
        PartitionsDiffer: a topic does not exist, or the numbers differ. kafka.errors.KafkaError: no answer.
    """
    topics = connection.topics
    pairs = (topics.clicks, topics.query_vectors), (topics.item_signals, topics.item_vectors)
    names = [name for pair in pairs for name in pair]
    known = described(connection, names)
    have = ", ".join(f"{name} {known[name][1] if name in known else 0}" for name in names)
    if any(name not in known for name in names) or any(known[a][1] != known[b][1] for a, b in pairs):
        raise PartitionsDiffer(
            f"a topic and its changelog must have the same number of partitions, and they have: {have}. Use topics "
            "under another prefix (updater.prefix), as docs/streaming.md says under more partitions"
        )
    return known


class TopicsMissing(RuntimeError):
    """Topics do not exist, and this principal may not create them. The message names them."""


def create_topics(connection: KafkaConnection | str, partitions: int = 4) -> None:
    """Create the topics of the loop that do not exist yet, and keep the internal ones from being deleted by age.

    Where all exist, no right to create or alter any is needed.

    Args:
        connection: The cluster, or just its ``host:port``.
        partitions: How far a stage can scale; all topics but the dead letters have as many.

    Raises:
        TopicsMissing: some do not exist and may not be created. kafka.errors.KafkaError: the cluster did not answer.
    """
    connection = KafkaConnection(bootstrap=connection) if isinstance(connection, str) else connection
    topics = connection.topics
    # The broker's clock on every click: what "too far in the future" is compared with, the same at every reading. It
    # also keeps retention by age, where there is one, from deleting a replay of old clicks as it arrives.
    settings = {
        topics.clicks: {"message.timestamp.type": "LogAppendTime"},
        topics.impressions: {"retention.ms": str(30 * 86_400_000)},  # reports look back days, not years
        topics.dismissed: {"retention.ms": str(90 * 86_400_000)},  # as long as services hold to them
        topics.items: {"cleanup.policy": "compact"},  # what was last said of an item holds for ever
        topics.forgotten: {"cleanup.policy": "compact"},  # and so does that a query was forgotten
        **dict.fromkeys(internal(topics), KEPT),
    }
    known = described(connection, list(topics.all))
    missing = [name for name in topics.all if name not in known]
    admin = KafkaAdminClient(**connection.client)
    try:
        if missing:
            asked = {
                name: {
                    "num_partitions": 1 if name == topics.dead_letters else partitions,
                    "configs": settings.get(name, {}),
                }
                for name in missing
            }
            for topic in admin.create_topics(asked, raise_errors=False)["topics"]:
                error = for_code(topic["error_code"])
                if issubclass(error, AuthorizationError):
                    raise TopicsMissing(
                        f"the topics {', '.join(missing)} do not exist and this user may not create them: create them "
                        "(docs/streaming.md says with which settings), or give the user the right CREATE"
                    )
                if topic["error_code"] not in (NoError.errno, TopicAlreadyExistsError.errno):
                    raise error(f"{topic['name']}: {topic['error_message']}")
        _keep(admin, [name for name in internal(topics) if name in known])
    finally:
        admin.close()


KEPT = {"retention.ms": "-1", "retention.bytes": "-1", "cleanup.policy": "delete"}
"""Of the internal topics: their records pack many rows, so Kafka cannot compact them, and only :mod:`streaming.trim`
knows which are needed no more."""


def internal(topics: Topics) -> tuple[str, ...]:
    """The topics that only the updater writes and that its state is restored from."""
    return topics.item_signals, topics.query_vectors, topics.item_vectors


def _keep(admin: KafkaAdminClient, names: list[str]) -> None:
    """Turn retention off on internal topics that others created: the cluster's week would delete state in silence."""
    try:
        resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in names]
        current = admin.describe_configs(resources, config_filter="all")["topic"] if names else {}
        for name, values in current.items():
            wrong = {key: value for key, value in KEPT.items() if key in values and values[key]["value"] != value}
            if not values:
                log.warning(
                    "retention_unknown topic=%s: without the right DESCRIBE_CONFIGS; it must have %s", name, KEPT
                )
            if wrong:
                log.warning("retention_off topic=%s was=%s", name, {key: values[key]["value"] for key in wrong})
                admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, name, configs=wrong)])
    except AuthorizationError as error:
        log.warning("retention_unknown error=%r: the topics %s must have %s", error, ", ".join(names), KEPT)
