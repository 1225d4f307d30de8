"""What the catalogue in the online store says of items: titles, and whether it knows those that came by a click."""

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from serving.corpus import Corpus
from serving.online_store import OnlineStore, StoreDown

log = logging.getLogger(__name__)
_AT_ONCE = 200  # items read in one go
_EVERY_S, _AGAIN_S = 0.2, 60.0
_LEFT_OUT = ("known",)


class Catalogue:
    """Looks up what is asked for, and by itself every item that came after its bundle.

    Args:
        corpora: Those whose items are looked up.
    """

    def __init__(self, store: OnlineStore, corpora: Callable[[], Collection[Corpus]]):
        self._store, self._corpora = store, corpora
        self._task: asyncio.Task | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._look_up())

    def close(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def item(self, id_: str) -> dict[str, Any]:
        """Its features; empty if the catalogue does not know it, or the store is down."""
        try:
            (features,) = await self._store.items([id_])
        except StoreDown:
            return {}
        return features if features.get("known") else {}

    async def titles(self, corpus: Corpus, ids: Sequence[str]) -> dict[str, str | None]:
        """What people call some items; those that cannot be read now are left out."""
        titles = corpus.titles(ids)
        missing = [id_ for id_ in dict.fromkeys(ids) if id_ not in titles]
        if missing and self._store.names.texts:
            try:
                read = await self._store.items(missing)
            except StoreDown:
                return titles
            named = {id_: self.title_of(features) for id_, features in zip(missing, read, strict=True)}
            corpus.name(named)
            titles |= named
        return titles

    def title_of(self, features: Mapping[str, Any]) -> str | None:
        return next((features[name] for name in self._store.names.texts if features.get(name)), None)

    async def _look_up(self) -> None:
        again = time.monotonic() + _AGAIN_S
        while True:
            await asyncio.sleep(_EVERY_S)
            for corpus in self._corpora():
                if time.monotonic() > again:  # a catalogue may have come to know them
                    corpus.newcomers.extend(corpus.unknown())
                while corpus.newcomers:
                    count = min(_AT_ONCE, len(corpus.newcomers))
                    ids = [corpus.newcomers.popleft() for _ in range(count)]
                    try:
                        await self._describe(corpus, ids)
                    except StoreDown:
                        corpus.newcomers.extendleft(ids)
                        break
                    except Exception:  # of one item's features; the others must not wait for ever
                        log.exception("some items could not be looked up in the catalogue: %s", ids[:5])
            if time.monotonic() > again:
                again = time.monotonic() + _AGAIN_S

    async def _describe(self, corpus: Corpus, ids: list[str]) -> None:
        known = {}
        for id_, features in zip(ids, await self._store.items(ids), strict=True):
            if features.get("known"):
                shown = {name: value for name, value in features.items() if name not in _LEFT_OUT and value is not None}
                known[id_] = shown, self.title_of(features)
        if known:
            await asyncio.to_thread(corpus.describe, known)
