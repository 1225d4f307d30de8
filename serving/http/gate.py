"""What reaches the service at all: known hosts and origins, keys with scopes, so many requests a second, bounded bodies
that arrive in time. And what every answer carries: headers that keep browsers from misusing it.
"""

import asyncio
import hashlib
import hmac
import ipaddress
import json
import logging
import re
import secrets
import time
from collections import OrderedDict
from collections.abc import Iterable
from urllib.parse import unquote_to_bytes, urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from model.settings.serving import ApiKey, ServingConfig
from model.settings.serving import Scope as KeyScope
from model.tracing import note
from serving.metrics import DURATION, REQUESTS, WRONG_KEYS
from serving.rates import Rates

log = logging.getLogger(__name__)
LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = [
    (b"content-security-policy", _POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
]
_NO_STORE = (b"cache-control", b"no-store")
_ROUTES = (
    "/v1/retrieve", "/v1/sessions", "/v1/clicks", "/v1/impressions", "/v1/items", "/v1/queries", "/v1/categories",
    "/v1/progress", "/v1/status", "/metrics", "/healthz", "/readyz", "/docs", "/openapi.json", "/page",
)  # fmt: skip
_CALLERS = 10_000  # whose requests, and whose wrong keys, are counted


class TooLarge(Exception):
    """The body is larger than the service reads."""


class TooSlow(Exception):
    """The body did not arrive in time."""


class Refused(Exception):
    """A request that does not reach the application. ``headers``: of the answer."""

    def __init__(self, status: int, code: str, message: str, headers: Iterable[tuple[bytes, bytes]] = ()):
        super().__init__(message)
        self.status, self.code, self.headers = status, code, list(headers)


class Gate:
    """ASGI middleware, the outermost one.

    Args:
        hosts: Names that the service answers to; empty: all.
    """

    def __init__(self, app: ASGIApp, config: ServingConfig, hosts: Iterable[str] = ()):
        self._app, self._config = app, config
        self._hosts = frozenset(host.lower() for host in hosts)
        self._origins = frozenset(config.cors_origins)
        # Compared by digest, so that the time it takes says nothing of the key.
        self._keys = {_digest(key.key.get_secret_value()): key for key in config.all_keys}
        self._requests, self._wrong_keys = Rates(_CALLERS), Rates(_CALLERS)
        self._right: OrderedDict[tuple[str, bytes], None] = OrderedDict()  # address, and key that it has used

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        began, path, method = time.perf_counter(), scope["path"], scope["method"]
        headers = dict(scope["headers"])
        request_id = _request_id(headers)
        note({"dat.request_id": request_id.decode()})
        status = 0

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), *_HEADERS, *extra]
                if path.startswith("/v1/") and all(name != b"cache-control" for name, _ in message["headers"]):
                    message["headers"].append(_NO_STORE)
            elif method == "HEAD":
                message = {**message, "body": b""}
            await send(message)

        extra = [(b"x-request-id", request_id)]
        try:
            cors = self._cors(headers)
            extra += cors
            self._check_host(headers, method, path, sum(name == b"host" for name, _ in scope["headers"]))
            if method == "OPTIONS" and cors and b"access-control-request-method" in headers:
                await _preflight(sending)
                return
            self._check_key(headers, method, path, scope)
            _check_path(scope)
            if b"range" in headers:  # no part of an answer is given alone
                scope = {**scope, "headers": [one for one in scope["headers"] if one[0] != b"range"]}
            if method == "HEAD":
                scope = {**scope, "method": "GET"}
            if method in ("POST", "PUT", "PATCH"):
                _check_encoding(headers)
                receive = self._bounded(headers, receive)
            await self._app(scope, receive, sending)
        except Refused as refused:
            await _answer(sending, refused)
        except TooLarge:
            limit = self._config.max_body_bytes
            await _answer(sending, Refused(413, "too-large", f"The body must not be larger than {limit} bytes."))
        except TooSlow:
            await _answer(sending, Refused(408, "too-slow", "The body did not arrive in time."))
        except Exception:
            log.exception("%s %s", method, path, extra={"request_id": request_id.decode()})
            if not status:
                await _answer(sending, Refused(500, "failed", "The service failed to answer; its log says why."))
            else:
                raise
        finally:
            route = next((name for name in _ROUTES if path.startswith(name)), "/" if path == "/" else "other")
            REQUESTS.labels(route, method if method in _METHODS else "other", status).inc()
            DURATION.labels(route).observe(time.perf_counter() - began)

    def _cors(self, headers: dict[bytes, bytes]) -> list[tuple[bytes, bytes]]:
        origin = headers.get(b"origin", b"")
        if origin.decode("latin-1") not in self._origins:
            return []
        exposed = (b"access-control-expose-headers", b"Retry-After, X-Request-ID")
        return [(b"access-control-allow-origin", origin), (b"vary", b"Origin"), exposed]

    def _check_host(self, headers: dict[bytes, bytes], method: str, path: str, hosts: int) -> None:
        """Raises:
        Refused: the request came under a name that is not ours, or from a page elsewhere that may not write.
        """
        if hosts > 1:
            raise Refused(400, "not-http", "A request has one Host.")
        host = headers.get(b"host", b"").decode("latin-1").lower()
        name = host if host.endswith("]") else host.rsplit(":", 1)[0] if ":" in host else host
        probe = path in ("/healthz", "/readyz")  # those who probe come by address
        if self._hosts and name not in self._hosts and not probe:
            raise Refused(421, "wrong-host", "The service has another host name; the setting `hosts` lists its names.")
        origin = headers.get(b"origin", b"").decode("latin-1")
        foreign = origin and origin not in self._origins and _host_of(origin) != host
        if foreign and method not in ("GET", "HEAD", "OPTIONS"):
            raise Refused(403, "wrong-origin", "Pages of this origin may not write; see the setting `cors_origins`.")

    def _check_key(self, headers: dict[bytes, bytes], method: str, path: str, scope: Scope) -> None:
        """Raises:
        Refused: no key, a wrong one, one without the scope, or too many requests.
        """
        needed = scope_of(method, path)
        if needed is None:
            return
        key: ApiKey | None = None
        caller = address = _network((scope.get("client") or ("?",))[0])
        if self._keys:
            scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
            given = headers.get(b"x-api-key") or (token.strip() if scheme.lower() == b"bearer" else scheme)
            challenge = [(b"www-authenticate", b"X-API-Key")]
            if not given:
                raise Refused(401, "no-key", "This service wants a key in the header X-API-Key.", challenge)
            digest = _digest(given.decode("latin-1"))
            key = self._keys.get(digest)
            self._check_guesses(address, digest)
            if key is None:
                raise Refused(401, "wrong-key", "This is not a key of this service.", challenge)
            if needed not in key.scopes:
                raise Refused(403, "scope", f"The key {key.name} may not do this: it lacks the scope `{needed}`.")
            caller = key.name
        rate = (key.per_second if key else None) or self._config.requests_per_second
        if rate is not None and (wait_s := self._requests.take(caller, max(1.0, rate), rate)):
            raise Refused(429, "too-many", f"More than {rate:g} requests a second.", _retry_after(wait_s))

    def _check_guesses(self, address: str, digest: bytes) -> None:
        """Count wrong keys by address. Beyond the limit a right key is refused as well, or it could be told from the
        wrong ones; but not one that the address has used before, so that nobody shuts out those who share it.

        Raises:
            Refused: too many wrong keys came from the address.
        """
        limit = self._config.wrong_keys_per_minute
        used, right = (address, digest), digest in self._keys
        if used in self._right:
            self._right.move_to_end(used)
            return
        count = self._wrong_keys.wait_s if right else self._wrong_keys.take
        if wait_s := count(address, limit, limit / 60):
            WRONG_KEYS.labels("unread").inc()
            told = "Too many wrong keys came from this address."
            raise Refused(429, "too-many-keys", told, _retry_after(wait_s))
        if not right:
            WRONG_KEYS.labels("refused").inc()
            return
        self._right[used] = None
        if len(self._right) > _CALLERS:
            self._right.popitem(last=False)

    def _bounded(self, headers: dict[bytes, bytes], receive: Receive) -> Receive:
        """The body, up to the limit in bytes and in time.

        Raises:
            TooLarge: by what its head says; the body itself raises as it is read.
        """
        declared = headers.get(b"content-length", b"0")
        if not declared.isdigit() or int(declared) > self._config.max_body_bytes:
            raise TooLarge
        deadline = time.monotonic() + self._config.receive_timeout_s
        read, whole = 0, False

        async def bounded() -> Message:
            nonlocal read, whole
            if whole:
                return await receive()  # only whether the caller has gone away
            try:
                async with asyncio.timeout(deadline - time.monotonic()):
                    message = await receive()
            except TimeoutError:
                raise TooSlow from None
            read += len(message.get("body", b""))
            whole = not message.get("more_body", False)
            if read > self._config.max_body_bytes:
                raise TooLarge
            return message

        return bounded


def _host_of(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:  # not what a browser says
        return None


def _network(address: str) -> str:
    """Whose address it is: of IPv6 everybody has 2⁶⁴, of IPv4 one."""
    try:
        known = ipaddress.ip_address(address)
    except ValueError:
        return address[:64]
    if isinstance(known, ipaddress.IPv4Address) or known.ipv4_mapped:
        return str(getattr(known, "ipv4_mapped", None) or known)
    return str(ipaddress.IPv6Network((int(known), 64), strict=False))


def _retry_after(seconds: int) -> list[tuple[bytes, bytes]]:
    return [(b"retry-after", str(seconds).encode())]


def _check_path(scope: Scope) -> None:
    """Raises:
    Refused: other bytes would all stand for the same replacement characters, as one id.
    """
    try:
        unquote_to_bytes(scope["raw_path"]).decode()
    except UnicodeDecodeError:
        raise Refused(422, "not-valid", "path: is not UTF-8, percent-encoded.") from None


def _check_encoding(headers: dict[bytes, bytes]) -> None:
    """Raises:
    Refused: the body is compressed, and so is not bounded by its size.
    """
    encoding = headers.get(b"content-encoding", b"identity").decode("latin-1")
    if encoding.strip().lower() not in ("", "identity"):
        told = f"body: the Content-Encoding {encoding[:100]!r} is not read; send it without."
        raise Refused(422, "not-valid", told)


_ID = re.compile(rb"[\w.:@/+=-]{1,128}")


def _request_id(headers: dict[bytes, bytes]) -> bytes:
    """The caller's X-Request-ID, if it can stand in a log as it is; else one of ours."""
    given = headers.get(b"x-request-id", b"")
    return given if _ID.fullmatch(given) else secrets.token_hex(8).encode()


_OPEN = frozenset({"/", "/docs", "/openapi.json", "/healthz", "/readyz"})
_READ = frozenset({"/v1/retrieve", "/v1/sessions", "/v1/categories", "/v1/progress", "/v1/status"})
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


def scope_of(method: str, path: str) -> KeyScope | None:
    """The scope that a request needs; None: everybody may. What is not named here needs the most: a path that the
    routes read otherwise than this does (a line feed at its end, say) must open nothing.
    """
    if path in _OPEN or path.startswith("/page/"):
        return None
    if path in ("/v1/clicks", "/v1/impressions"):
        return "click"
    reads = method in ("GET", "HEAD")
    if path in _READ or (reads and path.startswith("/v1/items/")):
        return "read"
    return "history" if reads and path.startswith("/v1/queries") else "operate"


def _digest(key: str) -> bytes:
    return hmac.new(b"dat", key.encode("utf-8", "surrogateescape"), hashlib.sha256).digest()


async def _preflight(send: Send) -> None:
    headers = [
        (b"access-control-allow-methods", b"GET, POST, PUT, PATCH, DELETE"),
        (b"access-control-allow-headers", b"Content-Type, X-API-Key, Authorization, X-Request-ID"),
        (b"access-control-max-age", b"600"),
    ]
    await send({"type": "http.response.start", "status": 204, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


async def _answer(send: Send, refused: Refused) -> None:
    body = json.dumps({"code": refused.code, "message": str(refused)}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        *refused.headers,
    ]
    if refused.status in (408, 413):
        headers.append((b"connection", b"close"))  # the rest of the body is not read
    await send({"type": "http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
