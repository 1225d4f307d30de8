"""What reaches the service at all: bodies of a bounded size, and the API key if one is set."""

import hmac
import json

from starlette.types import ASGIApp, Message, Receive, Scope, Send


class TooLarge(Exception):
    """The body is larger than the service reads."""


class Limits:
    """ASGI middleware: 413 for a body over ``max_body_bytes``, declared or not; 401 for /v1 without the key."""

    def __init__(self, app: ASGIApp, max_body_bytes: int, api_key: str | None = None):
        self._app = app
        self._max = max_body_bytes
        self._key = api_key.encode() if api_key else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        if (
            self._key
            and scope["path"].startswith("/v1/")
            and not hmac.compare_digest(headers.get(b"x-api-key", b""), self._key)
        ):
            await _refuse(send, 401, "no-key", "This service wants its API key in the header X-API-Key.")
            return
        declared = headers.get(b"content-length", b"0")
        too_large = f"The body must not be larger than {self._max} bytes."
        if not declared.isdigit() or int(declared) > self._max:
            await _refuse(send, 413, "too-large", too_large)
            return
        read = 0

        async def bounded() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > self._max:
                raise TooLarge
            return message

        async def instead(message: Message) -> None:
            if read <= self._max:
                await send(message)
            elif message["type"] == "http.response.start":  # whatever the application made of it, this is the reason
                await _refuse(send, 413, "too-large", too_large)

        await self._app(scope, bounded, instead)


async def _refuse(send: Send, status: int, code: str, message: str) -> None:
    body = json.dumps({"code": code, "message": message}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
