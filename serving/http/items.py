"""The routes of items: what is known of them, and what operators say of them."""

import asyncio
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from fastapi import APIRouter
from kafka.errors import KafkaError

from serving.click_producer import NotWritten
from serving.corpus import Held
from serving.features import checked
from serving.http import schemas
from serving.http.errors import MISSING, NotFound, PathId
from serving.item_records import ItemRecord
from serving.service import Service

_PATIENCE_S = 10.0  # for this process to read what it has written


def item_routes(service: Service) -> APIRouter:
    """``/v1/items`` and ``/v1/categories``."""
    router = APIRouter(prefix="/v1", tags=["items"])
    records, catalogue = service.items, service.catalogue

    async def say(items: dict[str, ItemRecord], anew: Collection[str] = ()) -> None:
        """Write what is said; it holds in this process when this returns, and in all others within a moment.

        Args:
            anew: Whose features are said now. Only those go to the online store, where others may be newer.
        """
        described = {id_: features for id_ in anew if (features := items[id_].features) is not None}
        if described:
            await service.store.write_items(described)
        try:
            tokens = await asyncio.to_thread(service.item_writer.write, items)
        except (KafkaError, TimeoutError) as problem:
            raise NotWritten(
                f"the broker did not acknowledge it ({type(problem).__name__}); send it again"
            ) from problem
        until = asyncio.get_running_loop().time() + _PATIENCE_S
        while not all(records.has_read(token.partition, token.offset) for token in tokens):
            if asyncio.get_running_loop().time() > until:
                raise NotWritten("it is written, and this process has not read it yet; send it again to be sure")
            await asyncio.sleep(0.005)

    def before(item_id: str) -> ItemRecord:
        if not records.caught_up:
            raise NotWritten("the service has not read yet what was said of items before; send it again in a moment")
        return records.get(item_id)

    def record(old: ItemRecord | None, item_id: str, body: schemas.ItemPut, where: str = "body") -> ItemRecord:
        given = body.model_dump(exclude={"features", "item_id"})
        if body.features is None:  # the store has lost what the catalogue says to what was said
            return ItemRecord(features=(old or before(item_id)).features, **given)
        return ItemRecord(features=checked(body.features, service.store.names.types, where), **given)

    async def show(item_id: str) -> schemas.ItemOut:
        corpus = service.snapshot.corpus
        row, said = corpus.row(item_id), records.get(item_id)
        features: Mapping[str, Any] = said.features or {}  # what an operator says holds, whatever a night writes
        if said.features is None:
            features = await catalogue.item(item_id)
        if row is None and not features and said == ItemRecord():
            raise NotFound("Neither the catalogue nor the stream knows this item.")
        shown = {name: features.get(name) for name in service.store.names.types if name != "known" and features}
        clicks, last = (0, 0) if row is None else corpus.activity(row)
        held = Held(0) if row is None else corpus.held(row)
        return schemas.ItemOut(
            item_id=item_id,
            title=catalogue.title_of(features),
            category=[] if row is None else list(corpus.category_of(row)),
            features=shown,
            clicks=clicks,
            last_click=last or None,
            in_index=row is not None and not held and bool(corpus.index.knows(np.array([row]))[0]),
            held=[str(reason.name).lower() for reason in held],
            **said.model_dump(include={"available", "hidden", "expires_at"}),
        )

    @router.get("/items/{item_id:text}", response_model=schemas.ItemOut, responses=MISSING)
    async def item(item_id: PathId) -> schemas.ItemOut:
        """What is known of an item."""
        return await show(item_id)

    @router.put("/items/{item_id:text}", response_model=schemas.ItemOut)
    async def put_item(item_id: PathId, body: schemas.ItemPut) -> schemas.ItemOut:
        """Say all of an item. Features that are left out stay; all else that is left out is as never said."""
        await say({item_id: record(None, item_id, body)}, [] if body.features is None else [item_id])
        return await show(item_id)

    @router.patch("/items/{item_id:text}", response_model=schemas.ItemOut)
    async def patch_item(item_id: PathId, body: schemas.ItemPatch) -> schemas.ItemOut:
        """Say something else of an item: what is left out stays. A feature that is null is taken away."""
        said = body.model_dump(exclude_unset=True, exclude={"features"})
        given = {name: value for name, value in said.items() if value is not None or name == "expires_at"}
        old = before(item_id)
        if body.features is not None:
            known = old.features if old.features is not None else await catalogue.item(item_id)
            merged: dict[str, Any] = {name: value for name, value in known.items() if name != "known"} | body.features
            given["features"] = checked(merged, service.store.names.types)
        await say({item_id: old.model_copy(update=given)}, [item_id] if "features" in given else [])
        return await show(item_id)

    @router.delete("/items/{item_id:text}", response_model=schemas.Accepted)
    async def delete_item(item_id: PathId) -> schemas.Accepted:
        """Never show it again, whatever is clicked or trained, until it is PUT anew."""
        await say({item_id: ItemRecord(features=records.get(item_id).features, deleted=True)})
        return schemas.Accepted(status="deleted")

    @router.post("/items", response_model=schemas.Accepted)
    async def put_items(body: schemas.ItemsIn) -> schemas.Accepted:
        """PUT of up to 1,000 items. Of one that is repeated the last counts."""
        said: dict[str, ItemRecord] = {}
        for k, item in enumerate(body.items):
            said[item.item_id] = record(said.get(item.item_id), item.item_id, item, f"body.items.{k}")
        await say(said, {item.item_id for item in body.items if item.features is not None})
        return schemas.Accepted(status="written")

    @router.get("/categories")
    async def categories() -> dict[str, int]:
        """The categories and how many items each has."""
        return service.snapshot.corpus.categories()

    return router
