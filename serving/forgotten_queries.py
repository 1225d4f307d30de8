"""Queries that were forgotten: from the moment that this process reads it, nothing older of them is in an answer."""

import threading
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any

from model.forgetting import Forgotten, Listed, take
from model.settings.updater import KafkaConnection
from serving.features import Columns
from serving.query_state import QueryTable
from serving.token import Token
from serving.topic_reader import TopicReader
from streaming.forgetting import parse


class ForgottenQueries(TopicReader):
    """Reads the list, takes the queries out of every bundle's table, and holds back what the store still has of them.

    Args:
        tables: Those that are in use.
        folded: The tokens, among some, whose records count in what the online store holds.
    """

    def __init__(
        self,
        kafka: KafkaConnection,
        tables: Callable[[], Collection[QueryTable]],
        folded: Callable[[set[Token]], Awaitable[set[Token]]],
    ):
        super().__init__(kafka, kafka.topics.forgotten)
        self._tables, self._folded = tables, folded
        self.known: Listed = {}
        self._open: Listed = {}  # of which the online store may still hold what was before
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self.known)

    def apply(self, record: Any) -> None:
        with self._lock:
            new = take(self.known, parse(record))
            self._open |= new
            for table in self._tables():
                self._take_out(new, table)

    def put_on(self, table: QueryTable) -> None:
        """Hold a table that has just been made to the list. It must be among ``tables`` already."""
        with self._lock:
            self._take_out(self.known, table)

    async def held_back(self, ids: Sequence[str], read: Callable[[Sequence[str]], Awaitable[Columns]]) -> Columns:
        """What the online store knows of some queries, less what is of before they were forgotten.

        Args:
            read: Reads the store.

        Raises:
            StoreDown: the store did not answer.
        """
        waiting = {id_: one for id_ in ids if (one := self._open.get(id_)) is not None}
        if not waiting:
            return await read(ids)
        # Before the rows: a row that is read after its moment counts is of after it.
        counted = await self._folded({token for one in waiting.values() if (token := _token(one)) is not None})
        columns = await read(ids)
        hidden = {id_ for id_, one in waiting.items() if _token(one) not in counted}
        for id_ in waiting.keys() - hidden:
            with self._lock:
                if self._open.get(id_) == waiting[id_]:
                    del self._open[id_]
        return {
            name: [None if id_ in hidden else value for id_, value in zip(ids, values, strict=True)]
            for name, values in columns.items()
        }

    @staticmethod
    def _take_out(listed: Listed, table: QueryTable) -> None:
        offsets = table.bundle.manifest.offsets
        table.forget(id_ for id_, one in listed.items() if one.offset is None or one.in_state(offsets))


def _token(one: Forgotten) -> Token | None:
    return None if one.partition is None or one.offset is None else Token(one.partition, one.offset)
