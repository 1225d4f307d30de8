"""Every error as ``{code, message}`` with one sentence for people."""

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import FastAPI, Request
from fastapi import Path as InPath
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.convertors import Convertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.routing import Match, Mount

from feature_repo.limits import NOT_A_TIME
from serving.ab.answer_ids import NotAnAnswerId
from serving.batcher import Closed, NoSuchClick, Overloaded
from serving.click_producer import NotWritten, TooManyClicks
from serving.features import NotAFeature
from serving.filters import UnknownName
from serving.http import schemas
from serving.http.fast_path import NotValid
from serving.http.gate import TooLarge, TooSlow
from serving.online_store import StoreDown


class _Text(Convertor[str]):
    """``{id:text}`` in a path: any text, also with slashes and line feeds; what can be clicked can be named."""

    regex = r"[\s\S]*"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("text", _Text())
PathId = Annotated[str, InPath(min_length=1, max_length=256)]
_TIMES = ("at", "event_time", "expires_at")
_METHODS = ("DELETE", "GET", "PATCH", "POST", "PUT")
ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": schemas.ErrorOut, "description": text}
    for status, text in {
        401: "No key, or a wrong one.",
        403: "The key lacks the scope, or the page's origin may not do this.",
        413: "The body is too large.",
        422: "The request is not valid; the message says what and where.",
        429: "Too many requests of this caller, wrong keys of its address, or clicks of this query; try again after "
        "Retry-After seconds.",
        503: "The service is busy, starting or cut off from the broker; try again after Retry-After seconds.",
    }.items()
}
MISSING: dict[int | str, dict[str, Any]] = {404: {"model": schemas.ErrorOut, "description": "Nobody knows this id."}}


class GoneAway(Exception):
    """The client closed the connection: nobody waits for the answer."""


class NotFound(Exception):
    """Nobody knows this. The message says what."""


def error(
    status: int,
    code: str,
    message: str,
    retry_after_s: int | None = None,
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    retry = {"Retry-After": str(retry_after_s)} if retry_after_s else {}
    return JSONResponse({"code": code, "message": message}, status, {**(headers or {}), **retry})


def handle_errors(app: FastAPI) -> None:
    """Give every error its status, its code and its sentence."""

    def says(kind: type[Exception], status: int, code: str, retry_after_s: int | None = None) -> None:
        async def handle(_: Request, problem: Exception) -> JSONResponse:
            return error(status, code, str(problem), getattr(problem, "retry_after_s", retry_after_s))

        app.add_exception_handler(kind, handle)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, problem: RequestValidationError) -> JSONResponse:
        first = problem.errors()[0]
        if first["loc"] == ("body",) and isinstance(first.get("input"), bytes):
            given = request.headers.get("content-type", "none")
            return error(422, "not-valid", f"body: the Content-Type must be application/json; it is {given[:100]}.")
        where = ".".join(str(part) for part in first["loc"])
        out_of_range = first["type"] in ("greater_than_equal", "less_than") and first["loc"][-1] in _TIMES
        told = NOT_A_TIME if out_of_range else first["msg"].removeprefix("Value error, ")
        return error(422, "not-valid", f"{where}: {told}")

    @app.exception_handler(HTTPException)
    async def refused(request: Request, problem: HTTPException) -> JSONResponse:
        if problem.status_code == 400:  # FastAPI's word for a body that is not even JSON
            for reason in (TooLarge, TooSlow):
                if isinstance(problem.__cause__, reason) or isinstance(problem.__context__, reason):
                    raise reason
            return error(422, "not-valid", "body: is not JSON.")
        names = {404: "not-found", 405: "not-allowed"}
        code = names.get(problem.status_code, "refused")
        headers = dict(problem.headers or {})
        if problem.status_code == 405:  # the framework names those of the first route only
            routes = [route for route in app.routes if not isinstance(route, Mount)]
            asked = {method: {**request.scope, "method": method} for method in _METHODS}
            fits = [m for m in _METHODS if any(route.matches(asked[m])[0] is Match.FULL for route in routes)]
            headers |= {"Allow": ", ".join(fits)} if fits else {}
        return error(problem.status_code, code, str(problem.detail), headers=headers)

    @app.exception_handler(NotAnAnswerId)
    async def no_answer_id(_: Request, problem: NotAnAnswerId) -> JSONResponse:
        return error(422, "not-valid", f"body.answer_id: {problem}.")

    says(NotValid, 422, "not-valid")
    says(NotAFeature, 422, "not-valid")
    says(UnknownName, 422, "unknown-name")
    says(NoSuchClick, 422, "not-valid")
    says(NotFound, 404, "not-found")
    says(Overloaded, 503, "busy", 1)
    says(Closed, 503, "stopping", 5)
    says(NotWritten, 503, "not-written", 1)
    says(StoreDown, 503, "store-down", 1)
    says(TooManyClicks, 429, "too-many-clicks")
    says(GoneAway, 499, "gone")
