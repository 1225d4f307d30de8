"""Lists without a query: beside an item, and for a visitor of whom only this visit is known."""

import numpy as np
from fastapi import APIRouter, Request, Response
from fastapi.routing import APIRoute
from starlette.routing import Match
from starlette.types import Scope

from serving.http import schemas
from serving.http.asking import described, finish, read_parameters, to_ask
from serving.http.errors import MISSING, NotFound, PathId
from serving.service import Service

_SIMILAR = described(schemas.PlainIn)


class _Placement(APIRoute):
    """An item's id may end in ``/similar`` itself, with the slash percent-encoded."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        ours = not self.path.endswith("/similar") or scope["raw_path"].endswith(b"/similar")
        return super().matches(scope) if ours else (Match.NONE, {})


def placement_routes(service: Service) -> APIRouter:
    """``/v1/items/{id}/similar`` and ``/v1/sessions``."""
    router = APIRouter(prefix="/v1", tags=["retrieval"], route_class=_Placement)

    @router.get(
        "/items/{item_id:text}/similar", response_model=schemas.RetrieveOut, responses=MISSING, openapi_extra=_SIMILAR
    )
    async def similar(item_id: PathId, request: Request) -> Response:
        """The items that lie nearest to one, for its page: also of one that is sold out or hidden."""
        options = read_parameters(schemas.PlainIn, request)
        corpus = service.snapshot.corpus
        row = corpus.row(item_id)
        if row is None or not corpus.index.knows(np.array([row]))[0]:
            raise NotFound("No vector of this item is known.")
        ask = to_ask(service, "", options, like=item_id)
        answer = await finish(service, await service.batcher.retrieve(ask), ask, options)
        return Response(answer, media_type="application/json")

    @router.post("/sessions", response_model=schemas.RetrieveOut)
    async def session(body: schemas.SessionIn) -> Response:
        """The top N of a visitor without an id, from what it has clicked in this visit; nothing of it is kept."""
        ask = to_ask(service, "", body, session=tuple(body.items))
        answer = await finish(service, await service.batcher.retrieve(ask), ask, body)
        return Response(answer, media_type="application/json")

    return router
