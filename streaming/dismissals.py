"""Dismissals: events against their item ("not interested"), which the query stage tells the services.

They stand in the topic ``dismissed``, not in the query's state: nothing that is trained or folded depends on them.
"""

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np

from model.topic_record import TopicRecord
from streaming.clicks import Clicks

Array = np.ndarray


class Dismissal(TopicRecord):
    """That a query dismissed an item. A JSON object on Kafka, keyed by the query's id.

    partition, offset: where the event stands in ``clicks`` · clicks: how many clicks the query had made before it, so
    that a click of the item after it takes it back; None: that is not known.
    """

    item_id: str
    event_time: int
    partition: int
    offset: int
    clicks: int | None = None


def dismissals(
    events: Clicks, against: Array, counted: Array, clicks_of: Callable[[str], int]
) -> list[tuple[str, Dismissal]]:
    """Query and dismissal of some events [N] of a batch.

    Args:
        against, counted: [N] which are dismissals, and which are clicks that count.
        clicks_of: How many clicks a query had made before the batch.
    """
    found: list[tuple[str, Dismissal]] = []
    clicks: Counter[str] = Counter()
    for k in np.flatnonzero(against | counted).tolist() if against.any() else ():
        query_id = events.query_ids[k]
        if counted[k]:
            clicks[query_id] += 1
            continue
        found.append(
            (
                query_id,
                Dismissal(
                    item_id=events.item_ids[k], event_time=int(events.times[k]), partition=int(events.partitions[k]),
                    offset=int(events.offsets[k]), clicks=clicks_of(query_id) + clicks[query_id],
                ),
            )
        )  # fmt: skip
    return found


def parse(record: Any) -> tuple[str, Dismissal]:
    """The query and the dismissal of a record.

    Raises:
        ValueError: it is none.
    """
    return record.key.decode(), Dismissal.model_validate_json(record.value or b"")
