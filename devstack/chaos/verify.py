"""After a storm: what the changelogs and the online store hold, against the truth."""

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from devstack.synthetic_bundle import one_thread
from model.bundle import Bundle
from model.click import Click
from model.settings.updater import KafkaConnection
from streaming.kafka.changelog import read_committed
from streaming.kafka.clients import close_quietly, free_consumer, partitions_of

if TYPE_CHECKING:
    from feast import FeatureStore

Rows = dict[str, dict]
SIDES = ("query", "item")


def last_rows(connection: KafkaConnection, bundle: Bundle, side: str) -> Rows:
    """The last committed row of each id: its ``folded``, ``clicks`` and ``a``."""
    consumer, topics = free_consumer(connection), connection.topics
    try:
        partitions = partitions_of(consumer, topics.query_vectors if side == "query" else topics.item_vectors)
    finally:
        close_quietly(consumer)
    last = {}
    for change in read_committed(connection, partitions, bundle.version):
        if not change.drift:
            rows = change.rows.select(["id", "folded", "clicks", "a"])
            last.update({row["id"]: row for row in rows.to_pylist()})
    return last


def compare(bundle: Bundle, clicks: Sequence[Click], rows: dict[str, Rows]) -> dict:
    """Clicks lost and doubled on either side, and how far any a_u is from one thread's. The bundle has folded none."""
    truths = {"query": Counter(c.query_id for c in clicks), "item": Counter(c.item_id for c in clicks)}
    lost = doubled = 0
    for side, truth in truths.items():
        for key in truth.keys() | rows[side].keys():
            difference = rows[side].get(key, {"folded": 0})["folded"] - truth.get(key, 0)
            lost, doubled = lost + max(0, -difference), doubled + max(0, difference)
    reference, mine = one_thread(bundle, clicks), rows["query"]
    differences = [np.abs(np.reshape(mine[key]["a"], a.shape) - a).max() for key, a in reference.items() if key in mine]
    return {
        "lost": lost,
        "doubled": doubled,
        "queries": len(truths["query"]),
        "items": len(truths["item"]),
        "max_difference": float(max(differences)),
    }


def wrong_in_store(store: "FeatureStore", bundle: Bundle, rows: dict[str, Rows]) -> int:
    """Ids of which the online store has not the last committed count, or that of another bundle."""
    wrong = 0
    for side, mine in rows.items():
        ids = list(mine)
        for start in range(0, len(ids), 1_000):
            some = ids[start : start + 1_000]
            names = [f"{side}_augmented:folded", f"{side}_augmented:bundle"]
            found = store.get_online_features(
                features=names, entity_rows=[{f"{side}_id": key} for key in some]
            ).to_dict()
            for key, folded, version in zip(some, found["folded"], found["bundle"], strict=True):
                wrong += (folded, version) != (mine[key]["folded"], bundle.version)
    return wrong
