"""How many clicks have been folded since a bundle's cut: what the changelogs say, against what was sent."""

from streaming.changelog import read_committed
from streaming.clients import close_quietly, free_consumer, partitions_of
from streaming.config import KafkaConnection
from streaming.topics import ITEM_VECTORS, QUERY_VECTORS
from training.bundle import Bundle, SideTable


def applied(connection: KafkaConnection, bundle: Bundle) -> tuple[dict[str, int], dict[str, int]]:
    """Clicks folded since the cut, by query and by item, as the committed changelogs have them now."""
    return _since(connection, QUERY_VECTORS, bundle.version, bundle.queries), _since(
        connection, ITEM_VECTORS, bundle.version, bundle.items
    )


def _since(connection: KafkaConnection, topic: str, version: str, table: SideTable) -> dict[str, int]:
    consumer = free_consumer(connection)
    try:
        partitions = partitions_of(consumer, topic)
    finally:
        close_quietly(consumer)
    latest: dict[str, int] = {}
    for change in read_committed(connection, partitions, version):
        latest.update(zip(change.rows["id"].to_pylist(), change.rows["folded"].to_pylist(), strict=True))
    at_cut = dict(zip(table.ids, table.folded.tolist(), strict=True))
    return {key: folded - at_cut.get(key, 0) for key, folded in latest.items()}
