"""The HTTP API: questions, clicks, and what the page and an operator want to know."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated

from fastapi import FastAPI, Query, Request, Response
from fastapi import Path as InPath
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import Field, TypeAdapter
from starlette.exceptions import HTTPException

from feature_repo.click_event import Click
from serving import metrics, schemas
from serving.clicks import NotWritten
from serving.clock import wall_ms
from serving.desk import Busy, Closed
from serving.fast_path import FastPath
from serving.limits import Limits
from serving.retrieval import Answer, Ask
from serving.service import Service

PAGE = Path(__file__).parent / "page"
_AHEAD_MS = 60_000  # as far as two clocks may disagree; the stream sets later clicks aside
_ANSWER = TypeAdapter(Answer)
_ANSWERS = TypeAdapter(dict[str, list[Answer]])
_ERRORS = {
    status: {"model": schemas.ErrorOut, "description": text}
    for status, text in {
        413: "The body is too large.",
        422: "The request is not valid; the message says what and where.",
        503: "The service is busy, starting or cut off from the broker; try again after Retry-After seconds.",
    }.items()
}
_MISSING = {404: {"model": schemas.ErrorOut, "description": "Nobody knows this id."}}
QueryId = Annotated[str, Query(min_length=1, max_length=256, description="Whose top N. A new id is welcome.")]
PathId = Annotated[str, InPath(min_length=1, max_length=256)]


def error(status: int, code: str, message: str, retry_after_s: int | None = None) -> JSONResponse:
    headers = {"Retry-After": str(retry_after_s)} if retry_after_s else None
    return JSONResponse({"code": code, "message": message}, status, headers)


def create_app(service: Service) -> FastAPI:
    """The application over a running service; it closes the service when it ends."""
    config = service.config

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(service.close)

    app = FastAPI(
        title="DAT retrieval",
        description="The top N of a query, exact about freshness: post a click, and the next answer counts it.",
        version="1",
        lifespan=lifespan,
        responses=_ERRORS,
    )
    _handle_errors(app)

    async def ask(asks: list[Ask]) -> list[Answer]:
        futures, began = [], time.perf_counter()
        try:
            futures += [asyncio.wrap_future(service.desk.submit(one)) for one in asks]
            answers = list(await asyncio.gather(*futures))
        except BaseException:  # the client went away, or the desk is full: nobody waits for the rest
            for future in futures:
                future.cancel()
            raise
        for answer in answers:
            metrics.ANSWER.labels(answer.source).observe(time.perf_counter() - began)
        return answers

    def to_ask(query_id: str, options: schemas.RetrieveOptions, **more) -> Ask:
        return Ask(
            query_id=query_id, n=options.n, at_ms=options.at, exclude_seen=options.exclude_seen,
            category=options.category, details=options.details, shown=options.shown, **more,
        )  # fmt: skip

    class RetrieveIn(schemas.RetrieveIn):
        timeout_ms: int = Field(
            config.default_timeout_ms, ge=0, le=config.max_timeout_ms, description="How long to hold it at most."
        )

    async def retrieve_json(asked: RetrieveIn) -> bytes:
        waits = {"wait_for_clicks": asked.wait_for_clicks, "timeout_s": asked.timeout_ms / 1000}
        (answer,) = await ask([to_ask(asked.query_id, asked, **waits)])
        return _ANSWER.dump_json(answer)

    @app.get("/v1/retrieve", response_model=schemas.RetrieveOut, tags=["retrieval"])
    async def retrieve(asked: Annotated[RetrieveIn, Query()]) -> Response:
        """One query's top N. With `wait_for_clicks` it is held until that many clicks count (read your writes)."""
        return Response(await retrieve_json(asked), media_type="application/json")

    app.add_middleware(FastPath, path="/v1/retrieve", asked=RetrieveIn, answer=retrieve_json, fails=(Busy, Closed))
    app.add_middleware(Limits, max_body_bytes=config.max_body_bytes, api_key=config.api_key)  # the outermost

    @app.post("/v1/retrieve", response_model=schemas.BatchOut, tags=["retrieval"])
    async def retrieve_batch(body: schemas.BatchIn) -> Response:
        """The top N of up to 100 queries, in their order."""
        allow = None if body.allow is None else tuple(body.allow)
        answers = await ask([to_ask(query_id, body, allow=allow) for query_id in body.query_ids])
        return Response(_ANSWERS.dump_json({"answers": answers}), media_type="application/json")

    @app.post("/v1/clicks", response_model=schemas.ClickOut, status_code=202, tags=["clicks"])
    async def click(body: schemas.ClickIn) -> schemas.ClickOut | Response:
        """Write a click to the stream. Answers once the broker has it; a few milliseconds later it counts."""
        if body.event_time is not None and body.event_time > wall_ms() + _AHEAD_MS:
            return error(422, "not-valid", "body.event_time: lies in the future.")
        event = Click(
            event_id=body.event_id or uuid.uuid4().hex,
            query_id=body.query_id,
            item_id=body.item_id,
            event_time=service.clock.now_ms() if body.event_time is None else body.event_time,
            context=body.context,
        )
        posted = await service.clicks.post(event)
        return schemas.ClickOut(
            event_id=event.event_id,
            event_time=event.event_time,
            clicks=posted.before,
            wait_for_clicks=posted.after,
        )

    @app.get("/v1/items/{item_id:path}", response_model=schemas.ItemOut, responses=_MISSING, tags=["catalogue"])
    def item(item_id: PathId) -> schemas.ItemOut | Response:
        """What is known of an item."""
        found = service.item(item_id)
        return (
            error(404, "not-found", "Neither the catalogue nor the stream knows this item.") if found is None else found
        )

    @app.get("/v1/queries", response_model=schemas.Queries, tags=["catalogue"])
    def queries(
        limit: Annotated[int, Query(ge=1, le=1000)] = 50,
        prefix: Annotated[str, Query(max_length=256, description="Only ids that begin so.")] = "",
    ) -> schemas.Queries:
        """Some query ids to try, those with the latest clicks first."""
        return schemas.Queries(query_ids=service.query_ids(limit, prefix))

    @app.get("/v1/queries/{query_id:path}/clicks", response_model=list[schemas.Item], tags=["catalogue"])
    def history(query_id: PathId, n: Annotated[int, Query(ge=1, le=1000)] = 20) -> Response:
        """A query's latest clicked items, newest first, as the stream has them."""
        return Response(
            TypeAdapter(list).dump_json(service.retriever.history(query_id, n)), media_type="application/json"
        )

    @app.get("/v1/categories", tags=["catalogue"])
    def categories() -> dict[str, int]:
        """The categories and how many items each has."""
        return service.retriever.served.corpus.categories()

    @app.get("/v1/map", tags=["page"])
    def map_(
        query_id: QueryId, background: Annotated[bool, Query(description="With a sample of items.")] = True
    ) -> dict:
        """Where a query lies among the items, in the plane of the items' two principal components."""
        return service.map(query_id, background)

    @app.get("/v1/progress", responses={204: {"description": "No replay runs."}}, tags=["page"])
    def progress() -> Response:
        """Live against static hit rate of the replay that runs; 204 while there is none."""
        found = service.progress()
        return Response(status_code=204) if found is None else Response(found, media_type="application/json")

    @app.get("/v1/status", tags=["operation"])
    def status() -> dict:
        """The bundle, the index, the stream and the load."""
        return service.status()

    @app.get("/metrics", include_in_schema=False)
    def prometheus() -> Response:
        """Figures for Prometheus."""
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    @app.get("/healthz", response_model=schemas.Health, tags=["operation"])
    async def health() -> schemas.Health:
        """The process lives."""
        return schemas.Health(status="ok")

    @app.get("/readyz", response_model=schemas.Health, tags=["operation"])
    def ready() -> schemas.Health | Response:
        """The index has caught up with the stream and the store answers; 503 and why if not."""
        reason = service.not_ready()
        return schemas.Health(status="ready") if reason is None else error(503, "not-ready", reason, 1)

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(PAGE / "index.html", headers={"Cache-Control": "no-cache"})

    app.mount("/page", StaticFiles(directory=PAGE), name="page")
    return app


def _handle_errors(app: FastAPI) -> None:
    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, problem: RequestValidationError) -> JSONResponse:
        first = problem.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        return error(422, "not-valid", f"{where}: {first['msg']}")

    @app.exception_handler(HTTPException)
    async def refused(_: Request, problem: HTTPException) -> JSONResponse:
        if problem.status_code == 400:  # FastAPI's word for a body that is not even JSON
            return error(422, "not-valid", "body: is not JSON.")
        names = {404: "not-found", 405: "not-allowed"}
        return error(problem.status_code, names.get(problem.status_code, "refused"), str(problem.detail))

    @app.exception_handler(Busy)
    async def busy(_: Request, problem: Busy) -> JSONResponse:
        metrics.REFUSED.inc()
        return error(503, "busy", f"The service is busy: {problem}.", 1)

    @app.exception_handler(Closed)
    async def closed(_: Request, problem: Closed) -> JSONResponse:
        return error(503, "stopping", str(problem), 5)

    @app.exception_handler(NotWritten)
    async def not_written(_: Request, problem: NotWritten) -> JSONResponse:
        return error(503, "not-written", str(problem), 1)
