"""How many clicks have been folded since a bundle's cut: what the changelogs say, against what was sent."""

from model.bundle import Bundle
from model.settings.updater import KafkaConnection
from model.state import EntityState
from streaming.kafka.changelog import read_committed
from streaming.kafka.clients import close_quietly, free_consumer, partitions_of


def applied(connection: KafkaConnection, bundle: Bundle) -> tuple[dict[str, int], dict[str, int]]:
    """Clicks folded since the cut, by query and by item, as the committed changelogs have them now."""
    topics = connection.topics
    return (
        _since(connection, topics.query_vectors, bundle.version, bundle.queries),
        _since(connection, topics.item_vectors, bundle.version, bundle.items),
    )


def _since(connection: KafkaConnection, topic: str, version: str, table: EntityState) -> dict[str, int]:
    consumer = free_consumer(connection)
    try:
        partitions = partitions_of(consumer, topic)
    finally:
        close_quietly(consumer)
    latest: dict[str, int] = {}
    for change in read_committed(connection, partitions, version):
        latest.update(zip(change.rows["id"].to_pylist(), change.rows["folded"].to_pylist(), strict=True))
    at_cut = dict(zip(table.ids, table.update_count.tolist(), strict=True))
    return {key: folded - at_cut.get(key, 0) for key, folded in latest.items()}
