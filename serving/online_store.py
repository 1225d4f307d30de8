"""What the online store knows, read without letting a store that is slow or away slow an answer down."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from feast import FeatureStore

from serving.features import Columns, FeatureNames, Reader, SdkReader, SdkWriter
from serving.metrics import STORE_ERRORS, STORE_READ
from serving.redis_reader import RedisReader
from streaming.sink.online_writer import OnlineWriter, progress_row

log = logging.getLogger(__name__)
_PAUSE_S = 0.5  # between two looks whether a store that was away is back
_PATIENCE_S = 5.0  # for reads that no answer waits for
_WRITE_S = 10.0


class StoreDown(RuntimeError):
    """The online store did not answer in time. The message is the store's own."""


class OnlineStore:
    """Reads queries and items, with a circuit breaker.

    A read that fails or takes too long opens the circuit: until a look in the background succeeds, reads fail at once,
    so that at most one batch of answers has waited for a store that hangs.

    Args:
        timeout_s: How long a read may take.
    """

    def __init__(self, store: FeatureStore, timeout_s: float):
        self.names = FeatureNames(store)
        redis = store.config.online_store.type == "redis"
        self._reader: Reader = RedisReader(store.config) if redis else _InThread(SdkReader(store))
        self._writer = SdkWriter(store)
        self._feast = store
        self._eraser: OnlineWriter | None = None
        self._writing = ThreadPoolExecutor(1, "catalogue")
        self._timeout_s = timeout_s
        self._looking: asyncio.Task | None = None
        self.down: str | None = None
        """Why the circuit is open; None while it is closed."""

    async def start(self) -> None:
        """Open the connection: a first read takes longer than an answer may wait."""
        with contextlib.suppress(Exception):
            await self._timed(self.names.query, "query_id", ["-"], _PATIENCE_S)

    async def queries(self, ids: Sequence[str]) -> Columns:
        """All that answering for some queries needs.

        Raises:
            StoreDown: the store did not answer.
        """
        return await self._read(self.names.query, "query_id", ids)

    async def items(self, ids: Sequence[str]) -> list[dict[str, Any]]:
        """The catalogue's features of some items, texts and ``known`` included.

        Raises:
            StoreDown: the store did not answer.
        """
        columns = await self._read(self.names.item, "item_id", ids)
        names = {reference: reference.partition(":")[2] for reference in self.names.item}
        return [
            {name: columns[reference.replace(":", "__", 1)][k] for reference, name in names.items()}
            for k in range(len(ids))
        ]

    async def write_items(self, items: Mapping[str, Mapping[str, Any]]) -> None:
        """Put items into the catalogue, or others in their place.

        Raises:
            StoreDown: the store did not take them; to write them again does no harm.
        """
        await self._write(self._writer.write, items)

    async def erase(self, ids: list[str]) -> None:
        """Take out all values of some queries.

        Raises:
            StoreDown: the store did not take it; to do it again does no harm.
        """
        await self._write(self._erase, ids)

    def _erase(self, ids: list[str]) -> None:
        # Made in the thread that uses it: SQLite's connections are a thread's own.
        self._eraser = self._eraser or OnlineWriter(self._feast, "erase")
        self._eraser.erase(ids)

    async def _write(self, write: Callable[[Any], None], what: Any) -> None:
        try:
            async with asyncio.timeout(_WRITE_S):
                await asyncio.get_running_loop().run_in_executor(self._writing, write, what)
        except Exception as error:  # each store raises its own kinds
            raise StoreDown(f"{type(error).__name__}: {error}") from error

    async def progress(self, partitions: Collection[int]) -> dict[int, int]:
        """By partition of ``clicks``, the offset below which every click counts in what the store holds.

        Raises:
            StoreDown: the store did not answer.
        """
        name = "query_activity:clicks"
        columns = await self._read([name], "query_id", [progress_row(partition) for partition in partitions])
        offsets = columns[name.replace(":", "__")]
        return {p: offset for p, offset in zip(partitions, offsets, strict=True) if offset is not None}

    async def close(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._looking
        self._writing.shutdown(wait=False, cancel_futures=True)
        await self._reader.close()

    async def _read(self, references: Sequence[str], key: str, ids: Sequence[str]) -> Columns:
        if self.down is not None:
            raise StoreDown(self.down)
        try:
            return await self._timed(references, key, ids, self._timeout_s)
        except Exception as error:  # each store raises its own kinds
            self.down = f"{type(error).__name__}: {error}"
            log.warning("the online store is left out of answers until it is back: %s", self.down)
            self._looking = asyncio.create_task(self._look(references, key))
            raise StoreDown(self.down) from error

    async def _timed(self, references: Sequence[str], key: str, ids: Sequence[str], timeout_s: float) -> Columns:
        began = time.perf_counter()
        try:
            async with asyncio.timeout(timeout_s):
                columns = await self._reader.read(references, key, ids)
        except BaseException:
            STORE_ERRORS.inc()
            raise
        STORE_READ.observe(time.perf_counter() - began)
        return columns

    async def _look(self, references: Sequence[str], key: str) -> None:
        while True:
            with contextlib.suppress(Exception):
                await self._timed(references, key, ["-"], _PATIENCE_S)
                break
            await asyncio.sleep(_PAUSE_S)
        self.down = None
        log.warning("the online store is back")


class _InThread:
    """A reader's calls in one thread: SQLite's connection is not made for several at once."""

    def __init__(self, reader: SdkReader):
        self._reader = reader
        self._pool = ThreadPoolExecutor(1, "online-store")

    async def read(self, references: Sequence[str], key: str, ids: Sequence[str]) -> Columns:
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._reader.read, references, key, ids)

    async def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
