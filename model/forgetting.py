"""Queries that were forgotten: the list that stream, lake and answers respect.

The moment of forgetting is a record of ``clicks`` in the query's own partition (:class:`model.click.Forget`): what lies
before it is forgotten, what comes after it is a new visitor's. The compacted topic ``forgotten`` keeps the list.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from model.topic_record import TopicRecord

Array = np.ndarray


class Forgotten(TopicRecord):
    """What the list says of one query. A JSON object on Kafka, keyed by the query's id.

    before: clicks with an earlier time (ms) never count again, whenever they arrive · partition, offset: where the
    moment stands in ``clicks``; clicks below it never count, whatever their time. None: it is not written yet.
    """

    before: int
    partition: int | None = None
    offset: int | None = None

    def covers(self, time: int, partition: int | None, offset: int | None) -> bool:
        """Whether a click of the query is forgotten. A row of a log file has no place: of that moment, too."""
        if offset is None:
            return time <= self.before
        below = self.offset is not None and partition == self.partition and offset < self.offset
        return time < self.before or below

    def in_state(self, offsets: Mapping[int, int]) -> bool:
        """Whether a state as of these offsets may still hold what was forgotten: the moment is not below them."""
        return self.partition is not None and self.offset is not None and self.offset >= offsets.get(self.partition, 0)


Listed = dict[str, Forgotten]


def take(known: Listed, said: Mapping[str, Forgotten]) -> Listed:
    """Put into a list what another one says, the later moment of each query; returns what was new."""
    new: Listed = {}
    for id_, one in said.items():
        before = known.get(id_)
        if before is None or _order(one) > _order(before):
            known[id_] = new[id_] = one
    return new


def _order(one: Forgotten) -> tuple[int, bool, int]:
    return one.before, one.offset is not None, one.offset or 0


def remembered(
    known: Listed,
    ids: Sequence[str],
    times: Sequence[Any] | Array,
    partitions: Sequence[Any] | Array,
    offsets: Sequence[Any] | Array,
) -> Array:
    """[N] which of some clicks are not forgotten."""
    kept = np.ones(len(ids), bool)
    for k in [k for k, id_ in enumerate(ids) if id_ in known] if known else ():
        kept[k] = not known[ids[k]].covers(times[k], partitions[k], offsets[k])
    return kept
