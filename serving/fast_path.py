"""The road that nearly all requests take, past the web framework: a GET of one query's top N.

Routing, dependencies and layers cost more than the answer does. What is valid is answered here; all else, and whatever
fails, goes on to the framework's route of the same path, which documents it and words its errors.
"""

from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qsl

from pydantic import BaseModel, ValidationError
from starlette.types import ASGIApp, Receive, Scope, Send


class FastPath:
    """ASGI middleware for ``GET path``.

    Args:
        asked: What the query string must be.
        answer: A valid question's answer as JSON.
        fails: What of it is left to the framework, which asks again.
    """

    def __init__(
        self,
        app: ASGIApp,
        path: str,
        asked: type[BaseModel],
        answer: Callable[[Any], Awaitable[bytes]],
        fails: tuple[type[Exception], ...],
    ):
        self._app, self._path, self._asked, self._answer, self._fails = app, path, asked, answer, fails

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] == self._path and scope["method"] == "GET":
            try:
                query = dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))
                body = await self._answer(self._asked.model_validate(query))
            except (ValidationError, *self._fails):
                pass
            else:
                headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
                await send({"type": "http.response.start", "status": 200, "headers": headers})
                await send({"type": "http.response.body", "body": body})
                return
        await self._app(scope, receive, send)
