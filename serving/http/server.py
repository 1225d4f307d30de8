"""The HTTP server: uvicorn, with limits on what a connection may do before it is a request, and an orderly end."""

import asyncio
import json
import signal
import socket
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from serving.http.api import create_app
from serving.service import Service

_KEEP_ALIVE_S = 60  # clients that keep connections for less never take up one that is being closed
_FRAMING = 10  # times the largest body: as much as it may be on the wire, in chunks of a few bytes
_LONGEST_URL = 65_535  # that the parser splits; beyond it the parser says no more than that something is wrong
_END_S = 3  # for requests that are still under way when the door is closed


class TimedProtocol(HttpToolsProtocol):
    """Closes connections that do not bring a request's head in time or bring too much, and those that are too many."""

    receive_timeout_s: float
    max_connections: int
    max_bytes: int
    _read = 0  # of the request that is being received
    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.max_connections:
            self._say(503, "busy", "Too many connections.", "retry-after: 1\r\n")
        else:
            self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        self._received()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._read += len(data)
        super().data_received(data)
        if self._late is not None and self._read > self.max_bytes:
            self._say(431, "too-large", f"A request's head must not be larger than {self.max_bytes} bytes.")
        elif self._read > _FRAMING * self.max_bytes:  # trailers, or a body that nobody reads
            self.transport.close()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._read = 0
        self._wait()

    def on_headers_complete(self) -> None:
        self._received()
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        if len(getattr(self, "url", b"")) > _LONGEST_URL:
            self._say(431, "too-large", f"The URL must not be longer than {_LONGEST_URL} bytes.")
        self._say(400, "not-http", "This is not a request in HTTP.")

    def _wait(self) -> None:
        if self._late is None:
            self._late = self.loop.call_later(
                self.receive_timeout_s, self._say, 408, "too-slow", "The request did not arrive in time."
            )

    def _received(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _say(self, status: int, code: str, message: str, headers: str = "") -> None:
        if self.transport.is_closing():
            return
        body = json.dumps({"code": code, "message": message})
        head = f"HTTP/1.1 {status} -\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
        self.transport.write(f"{head}{headers}connection: close\r\n\r\n{body}".encode())
        self.transport.close()


class Server(uvicorn.Server):
    """Serves until it is told to stop. At SIGTERM ``/readyz`` says so for a while before the door is closed, so that
    whoever spreads the requests sends them elsewhere."""

    def __init__(self, service: Service, hosts: tuple[str, ...] = (), **options: Any):
        settings = service.config
        limits = {
            "receive_timeout_s": settings.receive_timeout_s,
            "max_connections": settings.max_connections,
            "max_bytes": settings.max_body_bytes,
        }
        config = uvicorn.Config(
            create_app(service, hosts),
            http=type("Protocol", (TimedProtocol,), limits),
            ws="none",
            log_config=None,  # the command's, so that all lines look alike
            log_level="warning",
            access_log=False,
            server_header=False,
            # Else anybody who comes from this machine could say that it is somebody else.
            proxy_headers=bool(settings.trusted_proxies),
            forwarded_allow_ips=[str(network) for network in settings.trusted_proxies],
            timeout_keep_alive=_KEEP_ALIVE_S,
            timeout_graceful_shutdown=_END_S,
            **options,
        )
        super().__init__(config)
        self._service = service

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if sig != signal.SIGTERM or self._service.stopping or not self.started:
            super().handle_exit(sig, frame)
            return
        self._service.stopping = True
        asyncio.get_running_loop().call_later(self._service.config.drain_s, self._close_the_door)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        letting_go = asyncio.ensure_future(self._service.batcher.close())  # of held answers, before they are cut off
        await super().shutdown(sockets)
        await letting_go

    def _close_the_door(self) -> None:
        self.should_exit = True
