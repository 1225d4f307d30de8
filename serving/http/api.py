"""The HTTP API: questions, clicks, and what the page and an operator want to know."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

from fastapi import Depends, FastAPI, Request, Response
from fastapi.responses import FileResponse
from fastapi.routing import APIRoute
from fastapi.security import APIKeyHeader
from fastapi.staticfiles import StaticFiles
from fastapi.telemetry import TelemetryConfig
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import Field
from starlette.types import Receive

from model.click import Click
from model.tracing import note, provider
from serving.ab.answer_ids import AnswerId
from serving.batcher import Closed, NoSuchClick, Overloaded
from serving.filters import UnknownName
from serving.http import schemas
from serving.http.asking import described, finish, read_parameters, to_ask, unless_gone
from serving.http.errors import ERRORS, GoneAway, PathId, error, handle_errors
from serving.http.fast_path import FastPath, NotValid
from serving.http.gate import Gate
from serving.http.items import item_routes
from serving.http.placements import placement_routes
from serving.metrics import REGISTRY
from serving.service import Service
from serving.token import Token

PAGE = Path(__file__).parents[1] / "page"
_AHEAD_MS = 60_000  # as far as two clocks may disagree; the stream sets later clicks aside
_AHEAD_IN_REPLAY_MS = 7 * 86_400_000  # a click moves the replay's clock: no further than a log's gaps may be
_T = TypeVar("_T")


def create_app(service: Service, hosts: Iterable[str] = ()) -> FastAPI:
    """The application over a service; it starts and closes the service.

    Args:
        hosts: Host names that it answers to; empty: all.
    """
    config = service.config

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await service.start()
        yield
        await service.close()

    app = FastAPI(
        title="DAT retrieval",
        description="The top N of a query, exact about freshness: post a click, and the next answer counts it.",
        version="1",
        lifespan=lifespan,
        responses=ERRORS,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        servers=[{"url": "/"}],
        generate_unique_id_function=_operation_id,
        dependencies=[Depends(APIKeyHeader(name="X-API-Key", auto_error=False))],
        telemetry=_telemetry(),
    )
    handle_errors(app)

    class RetrieveIn(schemas.RetrieveIn):
        timeout_ms: schemas.Whole = Field(
            config.default_timeout_ms, ge=0, le=config.max_timeout_ms, description="How long to hold it at most."
        )

    async def retrieve_json(asked: RetrieveIn, receive: Receive) -> bytes:
        ask = to_ask(service, asked.query_id, asked)
        if asked.wait_for is None:
            return await finish(service, await service.batcher.retrieve(ask), ask, asked)
        token = Token.parse(asked.wait_for)
        held = service.batcher.retrieve(ask, token, asked.timeout_ms / 1000)
        return await finish(service, await unless_gone(held, receive), ask, asked)

    in_url = described(RetrieveIn)

    @app.get("/v1/retrieve", response_model=schemas.RetrieveOut, tags=["retrieval"], openapi_extra=in_url)
    async def retrieve(request: Request) -> Response:
        """One query's top N. With `wait_for` it is held until that click counts (read your writes)."""
        asked = read_parameters(RetrieveIn, request)
        return Response(await retrieve_json(asked, request.receive), media_type="application/json")

    app.add_middleware(
        FastPath, path="/v1/retrieve", query=RetrieveIn, answer=retrieve_json,
        fails=(Overloaded, Closed, UnknownName, GoneAway, NoSuchClick),
    )  # fmt: skip
    app.add_middleware(Gate, config=config, hosts=hosts)  # the outermost

    @app.post("/v1/retrieve", response_model=schemas.BatchOut, tags=["retrieval"])
    async def retrieve_many(body: schemas.BatchIn, request: Request) -> Response:
        """The top N of up to 100 queries, in their order."""
        _check_size(len(body.query_ids) * body.n, config.max_items)
        asks = [to_ask(service, query_id, body) for query_id in body.query_ids]
        answers = await unless_gone(service.batcher.retrieve_many(asks), request.receive)
        parts = []
        for answer, ask in zip(answers, asks, strict=True):
            parts.append(await finish(service, answer, ask, body))
            await asyncio.sleep(0)  # others have their turn between two of them
        return Response(b'{"answers":[' + b",".join(parts) + b"]}", media_type="application/json")

    @app.post("/v1/clicks", response_model=schemas.ClickOut, status_code=202, tags=["clicks"])
    async def click(body: schemas.ClickIn) -> schemas.ClickOut | Response:
        """Write a click to the stream. Answers once the broker has it; a few milliseconds later it counts."""
        now = service.clock.now_ms()
        ahead = _AHEAD_IN_REPLAY_MS if service.clock.replay else _AHEAD_MS
        if body.event_time is not None and body.event_time > now + ahead:
            return error(422, "not-valid", "body.event_time: lies in the future.")
        context = body.context
        if body.answer_id is not None:
            AnswerId.parse(body.answer_id)
            context = {**(context or {}), "answer_id": body.answer_id}
        event = Click(
            event_id=body.event_id or uuid.uuid4().hex,
            query_id=body.query_id,
            item_id=body.item_id,
            event_time=now if body.event_time is None else body.event_time,
            event_type=body.event_type,
            value=body.value,
            context=context,
        )
        note({"dat.event_id": event.event_id, "dat.answer_id": body.answer_id or ""})
        token = await service.post(event)
        return schemas.ClickOut(event_id=event.event_id, event_time=event.event_time, token=str(token))

    @app.post("/v1/impressions", response_model=schemas.Accepted, status_code=202, tags=["clicks"])
    async def impression(body: schemas.ImpressionIn) -> schemas.Accepted:
        """Say what somebody saw of an answer, for `dat ab` and the nightly hit rates of what was served."""
        service.impressions.note(AnswerId.parse(body.answer_id).impression(body.query_id, body.items))
        return schemas.Accepted()

    of_queries = described(schemas.QueriesIn)

    @app.get("/v1/queries", response_model=schemas.Queries, tags=["queries"], openapi_extra=of_queries)
    def queries(request: Request) -> schemas.Queries:  # in a thread: of a million ids it takes a while
        """Some query ids to try, those with the latest clicks first."""
        asked = read_parameters(schemas.QueriesIn, request)
        return schemas.Queries(query_ids=list(service.query_ids(asked.limit, asked.prefix)))

    @app.get(
        "/v1/queries/{query_id:text}/clicks", response_model=list[schemas.HistoryItem], tags=["queries"],
        openapi_extra=described(schemas.HistoryIn),
    )  # fmt: skip
    async def history(query_id: PathId, request: Request) -> list[schemas.HistoryItem]:
        """A query's latest clicked items, newest first, as the stream has them."""
        asked = read_parameters(schemas.HistoryIn, request)
        items, corpus = await service.history(query_id, asked.n), service.snapshot.corpus
        titles = await service.catalogue.titles(corpus, items)
        rows = {id_: corpus.row(id_) for id_ in items}
        return [
            schemas.HistoryItem(
                item_id=id_, title=titles.get(id_), category=[] if row is None else list(corpus.category_of(row))
            )
            for id_, row in ((id_, rows[id_]) for id_ in items)
        ]

    @app.delete("/v1/queries/{query_id:text}", response_model=schemas.Accepted, tags=["queries"])
    async def forget_query(query_id: PathId) -> schemas.Accepted:
        """Forget a query: from now on it is a new visitor. Lake and bundles follow by the night, or `dat forget`."""
        await service.forget(query_id)
        return schemas.Accepted(status="forgotten")

    @app.get("/v1/progress", responses={204: {"description": "No replay runs."}}, tags=["operation"])
    def progress() -> Response:
        """Live against static hit rate of the replay that runs; 204 while there is none."""
        written = service.progress()
        return Response(status_code=204) if written is None else Response(written, media_type="application/json")

    @app.get("/v1/status", response_model=schemas.Status, tags=["operation"])
    async def status() -> dict:
        """The bundle, the index, the stream and the load."""
        return service.status()

    @app.get("/metrics", include_in_schema=False)
    def prometheus() -> Response:
        """Figures for Prometheus."""
        return Response(generate_latest(REGISTRY), media_type=CONTENT_TYPE_LATEST)

    @app.get("/healthz", response_model=schemas.Health, tags=["operation"])
    async def health() -> schemas.Health | Response:
        """The process and its threads live; 503 and why if it should be replaced."""
        reason = service.not_alive()
        return schemas.Health(status="ok") if reason is None else error(503, "broken", reason, 1)

    @app.get("/readyz", response_model=schemas.Health, tags=["operation"])
    async def ready() -> schemas.Health | Response:
        """It can answer; 503 and why if not. How fresh answers are is in /v1/status and /metrics."""
        reason = service.not_ready()
        return schemas.Health(status="ready") if reason is None else error(503, "not-ready", reason, 1)

    app.include_router(placement_routes(service))
    app.include_router(item_routes(service))
    for path, file in (("/", "index.html"), ("/docs", "docs.html")):
        app.add_api_route(path, _file(file), include_in_schema=False, methods=["GET"])
    app.mount("/page", StaticFiles(directory=PAGE), name="page")
    return app


def _file(name: str) -> Callable[[], Awaitable[FileResponse]]:
    async def page() -> FileResponse:
        return FileResponse(PAGE / name, headers={"Cache-Control": "no-cache"})

    return page


def _telemetry() -> TelemetryConfig:
    """Spans of requests by FastAPI, if the process is traced; figures are Prometheus', and logs the command's."""
    off = TelemetryConfig(metrics=False, logs=False, operation_spans=False, auto_configure=False)
    return {**off, "tracing": provider() is not None, "tracer_provider": provider()}


def _check_size(items: int, most: int) -> None:
    if items > most:
        raise NotValid(f"body: asks for {items} items; query_ids × n may be {most} at most.")


def _operation_id(route: APIRoute) -> str:
    return route.name
