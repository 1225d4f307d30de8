"""The road that nearly all requests take, past the web framework: a GET of one query's top N.

Routing, dependencies and layers cost more than the answer does. What is valid is answered here; all else, and whatever
fails, goes on to the framework's route of the same path, which documents it and words its errors.
"""

from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qsl

from pydantic import BaseModel, ValidationError
from starlette.types import ASGIApp, Receive, Scope, Send

from model.tracing import note


class FastPath:
    """ASGI middleware for ``GET path``.

    Args:
        query: What the query string must be; parameters that may be given more than once are lists.
        answer: A valid question's answer as JSON.
        fails: What of it is left to the framework, which asks again.
    """

    def __init__(
        self,
        app: ASGIApp,
        path: str,
        query: type[BaseModel],
        answer: Callable[[Any, Receive], Awaitable[bytes]],
        fails: tuple[type[Exception], ...],
    ):
        self._app, self._path, self._query, self._answer = app, path, query, answer
        self._fails: tuple[type[Exception], ...] = (ValidationError, NotValid, *fails)
        self._lists = lists_of(query)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] == self._path and scope["method"] == "GET":
            try:
                asked = self._query.model_validate(parameters(scope["query_string"], self._lists))
                body = await self._answer(asked, receive)
            except self._fails:
                pass
            else:
                note({"http.route": self._path}, f"GET {self._path}")  # as the framework names those that it routes
                headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
                await send({"type": "http.response.start", "status": 200, "headers": headers})
                await send({"type": "http.response.body", "body": body})
                return
        await self._app(scope, receive, send)


class NotValid(ValueError):
    """The query string cannot be read. The message says why."""


def parameters(query_string: bytes, lists: frozenset[str]) -> dict[str, str | list[str]]:
    """The parameters of a query string.

    Raises:
        NotValid: it is not UTF-8, or a parameter that may be given once is given twice.
    """
    try:
        pairs = parse_qsl(query_string.decode("ascii"), keep_blank_values=True, errors="strict")
    except ValueError as error:
        raise NotValid("query: is not UTF-8, percent-encoded.") from error
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in lists:
            found.setdefault(name, []).append(value)
        elif name in found:
            raise NotValid(f"query.{name}: is given more than once.")
        else:
            found[name] = value
    return found


def lists_of(model: type[BaseModel]) -> frozenset[str]:
    """The fields of a model that are lists."""
    return frozenset(name for name, field in model.model_fields.items() if "list" in str(field.annotation))
