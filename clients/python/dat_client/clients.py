"""The clients: one that waits, one for asyncio. What they ask is said once, in :class:`_Operations`."""

import asyncio
import json
import random
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar
from urllib.parse import quote

import httpx

from dat_client.records import Answer, Clicked, ItemInfo, read

_T = TypeVar("_T")
_Result = TypeVar("_Result")
_AGAIN = frozenset({429, 502, 503, 504})


class RequestRefused(RuntimeError):
    """The service refused a request: ``status``, ``code``, its sentence, and ``retry_after_s`` if it says so."""

    def __init__(self, status: int, code: str, message: str, retry_after_s: float | None = None):
        super().__init__(message)
        self.status, self.code, self.retry_after_s = status, code, retry_after_s


@dataclass(frozen=True)
class _Request(Generic[_T]):
    """What is sent, and how its answer is read. All of them may be sent twice."""

    method: str
    path: str
    read: Callable[[Any], _T]
    params: Mapping[str, Any] = field(default_factory=dict)
    body: Any = None
    held_s: float = 0.0


class _Operations:
    """One method an operation of the API. Options that are None are not sent."""

    def __init__(self, api_key: str | None, timeout_s: float, retries: int):
        self._headers = {"X-API-Key": api_key} if api_key else {}
        self._timeout_s, self._retries = timeout_s, retries

    def _run(self, request: _Request[_T]) -> Any:
        raise NotImplementedError

    def retrieve(
        self, query_id: str, n: int = 100, *, wait_for: str | None = None, timeout_ms: int = 2_000, **options: Any
    ) -> Any:
        """A query's top n, as an :class:`Answer`.

        Args:
            wait_for: The token of a click: the answer is held until it counts, at most ``timeout_ms``.
            options: ``at``, ``exclude_seen``, ``category``, ``where``, ``exclude``, ``pinned``, ``boost``,
                ``max_per_category``, ``paged``, ``next``, ``details``, ``shown``, … as in the service's API.

        Raises:
            RequestRefused: the service said no. httpx.TransportError: it did not answer.
        """
        params = _in_url({"query_id": query_id, "n": n, "wait_for": wait_for, "timeout_ms": timeout_ms, **options})
        held_s = timeout_ms / 1000 if wait_for else 0.0
        return self._run(_Request("GET", "/v1/retrieve", Answer.of, params=params, held_s=held_s))

    def retrieve_many(self, query_ids: Sequence[str], n: int = 100, **options: Any) -> Any:
        """The top n of up to 100 queries, in their order; ``allow``: only these items."""
        body = _given({"query_ids": list(query_ids), "n": n, **options})
        return self._run(_Request("POST", "/v1/retrieve", _answers, body=body))

    def similar(self, item_id: str, n: int = 100, **options: Any) -> Any:
        """The items that lie nearest to one, as an :class:`Answer`; options as for :meth:`retrieve`."""
        path = f"/v1/items/{quote(item_id, safe='')}/similar"
        return self._run(_Request("GET", path, Answer.of, params=_in_url({"n": n, **options})))

    def session(self, items: Sequence[str], n: int = 100, **options: Any) -> Any:
        """The top n of a visitor without an id, from what it has clicked, oldest first; as an :class:`Answer`."""
        body = _given({"items": list(items), "n": n, **options})
        return self._run(_Request("POST", "/v1/sessions", Answer.of, body=body))

    def click(self, query_id: str, item_id: str, **options: Any) -> Any:
        """Write a click, as a :class:`Clicked`; options: ``event_id``, ``event_time``,
        ``event_type``, ``value``, ``answer_id``, ``context``."""
        event_id = options.pop("event_id", None) or uuid.uuid4().hex
        body = _given({"query_id": query_id, "item_id": item_id, "event_id": event_id, **options})
        return self._run(_Request("POST", "/v1/clicks", lambda found: read(Clicked, found), body=body))

    def impression(self, answer_id: str, query_id: str, items: Sequence[str]) -> Any:
        """Say what somebody saw of an answer: its items from the top, in their order."""
        body = {"answer_id": answer_id, "query_id": query_id, "items": list(items)}
        return self._run(_Request("POST", "/v1/impressions", lambda _: None, body=body))

    def item(self, item_id: str) -> Any:
        """What is known of an item, as an :class:`ItemInfo`."""
        path = f"/v1/items/{quote(item_id, safe='')}"
        return self._run(_Request("GET", path, lambda found: read(ItemInfo, found)))

    def put_item(self, item_id: str, **said: Any) -> Any:
        """Say all of an item: ``features``, ``available``, ``hidden``, ``expires_at``; as an :class:`ItemInfo`."""
        return self._say("PUT", item_id, said)

    def patch_item(self, item_id: str, **said: Any) -> Any:
        """Say something else of an item; what is left out stays."""
        return self._say("PATCH", item_id, said)

    def put_items(self, items: Sequence[Mapping[str, Any]]) -> Any:
        """:meth:`put_item` of up to 1,000 items, each with its ``item_id``."""
        return self._run(_Request("POST", "/v1/items", lambda _: None, body={"items": [dict(item) for item in items]}))

    def delete_item(self, item_id: str) -> Any:
        """Never show an item again, until it is put anew."""
        return self._run(_Request("DELETE", f"/v1/items/{quote(item_id, safe='')}", lambda _: None))

    def _say(self, method: str, item_id: str, said: Mapping[str, Any]) -> Any:
        path = f"/v1/items/{quote(item_id, safe='')}"
        return self._run(_Request(method, path, lambda found: read(ItemInfo, found), body=dict(said)))

    def categories(self) -> Any:
        """Category → how many items it has."""
        return self._run(_Request("GET", "/v1/categories", dict))

    def history(self, query_id: str, n: int = 20) -> Any:
        """Ids of a query's latest clicked items, newest first."""
        path = f"/v1/queries/{quote(query_id, safe='')}/clicks"
        return self._run(_Request("GET", path, lambda found: [one["item_id"] for one in found], params={"n": n}))

    def forget(self, query_id: str) -> Any:
        """Forget a query: from now on it is a new visitor."""
        return self._run(_Request("DELETE", f"/v1/queries/{quote(query_id, safe='')}", lambda _: None))

    def status(self) -> Any:
        """The service's own account of itself, as it stands."""
        return self._run(_Request("GET", "/v1/status", dict))

    def _arguments(self, request: _Request[Any]) -> dict[str, Any]:
        sent = {} if request.body is None else {"json": request.body}
        return {"params": request.params, "timeout": self._timeout_s + request.held_s, "headers": self._headers, **sent}

    def _pause(self, attempt: int, reply: httpx.Response | None) -> float | None:
        """How long to wait before the next attempt; None: there is none."""
        if attempt >= self._retries or (reply is not None and reply.status_code not in _AGAIN):
            return None
        told = "" if reply is None else reply.headers.get("Retry-After", "")
        return float(told) if told.isdigit() else 0.1 * 2**attempt * (1 + random.random())


class Client(_Operations):
    """Waits for its answers. Thread-safe; connections are kept.

    Args:
        url: The service's address. api_key: If the service asks for one. timeout_s: For one attempt, beyond the time
        that an answer may be held. retries: How often a request is tried again.
    """

    def __init__(self, url: str, api_key: str | None = None, timeout_s: float = 5.0, retries: int = 3):
        super().__init__(api_key, timeout_s, retries)
        self._http = httpx.Client(base_url=url)

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def _run(self, request: _Request[_T]) -> _T:
        for attempt in range(self._retries + 1):
            try:
                reply = self._http.request(request.method, request.path, **self._arguments(request))
            except httpx.TransportError:
                if (pause := self._pause(attempt, None)) is None:
                    raise
            else:
                if reply.is_success or (pause := self._pause(attempt, reply)) is None:
                    return request.read(_checked(reply))
            time.sleep(pause)
        raise AssertionError("the last attempt returns or raises")


class AsyncClient(_Operations):
    """The same for asyncio: every operation is to be awaited. Arguments as for :class:`Client`."""

    def __init__(self, url: str, api_key: str | None = None, timeout_s: float = 5.0, retries: int = 3):
        super().__init__(api_key, timeout_s, retries)
        self._http = httpx.AsyncClient(base_url=url)

    async def __aenter__(self) -> "AsyncClient":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        await self._http.aclose()

    async def _run(self, request: _Request[_T]) -> _T:
        for attempt in range(self._retries + 1):
            try:
                reply = await self._http.request(request.method, request.path, **self._arguments(request))
            except httpx.TransportError:
                if (pause := self._pause(attempt, None)) is None:
                    raise
            else:
                if reply.is_success or (pause := self._pause(attempt, reply)) is None:
                    return request.read(_checked(reply))
            await asyncio.sleep(pause)
        raise AssertionError("the last attempt returns or raises")


def _answers(found: Mapping[str, Any]) -> list[Answer]:
    return [Answer.of(one) for one in found["answers"]]


def _given(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _in_url(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options as they stand in a URL: conditions as JSON."""
    given = _given(options)
    if "where" in given:
        given["where"] = json.dumps(given["where"])
    if "boost" in given:
        given["boost"] = [json.dumps(boost) for boost in given["boost"]]
    return given


def _checked(reply: httpx.Response) -> Any:
    """Raises:
    RequestRefused: it is not a success.
    """
    if reply.is_success:
        return reply.json() if reply.content else None
    try:
        told = reply.json()
    except ValueError:
        told = {}
    after = reply.headers.get("Retry-After", "")
    message = told.get("message", f"the service answered {reply.status_code}")
    raise RequestRefused(
        reply.status_code, told.get("code", "refused"), message, float(after) if after.isdigit() else None
    )
