"""Items that queries have dismissed: their answers leave them out, over restarts, nights and bundles."""

import sys
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from model.forgetting import Listed
from model.settings.updater import KafkaConnection
from serving.corpus import Corpus
from serving.topic_reader import TopicReader
from streaming.dismissals import Dismissal, parse

Array = np.ndarray
_MOST = 100  # of one query; further ones let its oldest go
_DAY_MS = 86_400_000


class _Held(NamedTuple):
    """A :class:`Dismissal` of an item, in little memory."""

    event_time: int
    offset: int
    partition: int
    clicks: int | None


class DismissedItems(TopicReader):
    """Reads the topic ``dismissed``.

    Args:
        days: For how long a dismissal holds.
        now_ms: The moment of an answer. forgotten: Which queries were forgotten.
    """

    def __init__(self, kafka: KafkaConnection, days: float, now_ms: Callable[[], int], forgotten: Callable[[], Listed]):
        super().__init__(kafka, kafka.topics.dismissed)
        self._days, self._now_ms, self._forgotten = days, now_ms, forgotten
        self._known: dict[str, dict[str, _Held]] = {}
        self._lock = threading.Lock()

    def apply(self, record: Any) -> None:
        self.note(*parse(record))

    def note(self, query_id: str, said: Dismissal) -> None:
        """Take over a dismissal. One may come again, and an older one of the item after it."""
        with self._lock:
            known, held = (
                self._known.get(query_id, {}),
                _Held(said.event_time, said.offset, said.partition, said.clicks),
            )
            before = known.get(said.item_id)
            if before is None or _order(before) <= _order(held):
                # Replaced as a whole: an answer that is being made goes through the one that it has.
                items = known | {sys.intern(said.item_id): held}
                newest = sorted(items, key=lambda item: items[item].event_time)[-_MOST:]
                self._known[query_id] = {item: items[item] for item in newest}

    def rows(self, query_id: str, corpus: Corpus, clicks: int, seen: Array) -> Array | None:
        """Rows of what a query dismissed and has not clicked since; None: of nothing.

        Args:
            clicks: How many clicks it has made. seen: Rows of its latest ones, newest last.
        """
        known = self._known.get(query_id)
        if not known:
            return None
        forgotten, since = self._forgotten().get(query_id), self._now_ms() - self._days * _DAY_MS
        held = [
            (item, one)
            for item, one in known.items()
            if one.event_time >= since
            and not (forgotten and forgotten.covers(one.event_time, one.partition, one.offset))
        ]
        rows = [row for item, one in held if (row := _row(corpus.row(item), one, clicks, seen)) is not None]
        return np.array(rows, np.int64) if rows else None


def _order(held: _Held) -> tuple[int, int, bool]:
    return held.event_time, held.offset, held.clicks is not None


def _row(row: int | None, held: _Held, clicks: int, seen: Array) -> int | None:
    """The item's row, unless the query has clicked it since."""
    later = 0 if held.clicks is None else clicks - held.clicks
    return None if row is None or (later > 0 and row in seen[-later:]) else row
