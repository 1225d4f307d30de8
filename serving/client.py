"""A client in Python, for programs that ask and click.

with Client("http://127.0.0.1:8000") as dat:
    answer = dat.retrieve("42", n=10)
    fresh = dat.click_and_retrieve("42", answer.items[0].item_id, n=10)
"""

from typing import Any
from urllib.parse import quote

import httpx

from serving.schemas import BatchOut, ClickOut, ItemOut, RetrieveOut


class RequestRefused(RuntimeError):
    """The service refused a request: ``status``, ``code``, its sentence, and ``retry_after_s`` if it says so."""

    def __init__(self, status: int, code: str, message: str, retry_after_s: float | None = None):
        super().__init__(message)
        self.status, self.code, self.retry_after_s = status, code, retry_after_s


class Client:
    """Talks to one retrieval service over kept connections. Thread-safe.

    Args:
        url: The service's address.
        api_key: If the service asks for one.
        timeout_s: For a request, beyond the time that it may be held for ``wait_for_clicks``.
    """

    def __init__(self, url: str, api_key: str | None = None, timeout_s: float = 10.0):
        headers = {"X-API-Key": api_key} if api_key else {}
        self._timeout_s = timeout_s
        self._http = httpx.Client(base_url=url, headers=headers, timeout=timeout_s)

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def retrieve(self, query_id: str, n: int = 100, timeout_ms: int = 2_000, **options: Any) -> RetrieveOut:
        """A query's top n.

        Args:
            timeout_ms: How long the answer may be held for ``wait_for_clicks``.
            options: ``at``, ``exclude_seen``, ``category``, ``details``, ``wait_for_clicks``, as in the HTTP API.

        Raises:
            RequestRefused: the service said no. httpx.TransportError: it did not answer.
        """
        params = {"query_id": query_id, "n": n, "timeout_ms": timeout_ms, **_given(options)}
        timeout = self._timeout_s + timeout_ms / 1000
        return RetrieveOut.model_validate_json(self._call("GET", "/v1/retrieve", timeout, params=params))

    def retrieve_many(self, query_ids: list[str], n: int = 100, **options: Any) -> list[RetrieveOut]:
        """The top n of up to 100 queries, in their order; ``allow``: only these items. Raises as :meth:`retrieve`."""
        body = {"query_ids": query_ids, "n": n, **_given(options)}
        found = self._call("POST", "/v1/retrieve", self._timeout_s, json=body)
        return BatchOut.model_validate_json(found).answers

    def click(self, query_id: str, item_id: str, **fields: Any) -> ClickOut:
        """Write a click; ``fields``: ``event_id``, ``event_time``, ``context``. Raises as :meth:`retrieve`."""
        body = {"query_id": query_id, "item_id": item_id, **_given(fields)}
        return ClickOut.model_validate_json(self._call("POST", "/v1/clicks", self._timeout_s, json=body))

    def click_and_retrieve(self, query_id: str, item_id: str, n: int = 100, **options: Any) -> RetrieveOut:
        """Write a click, and return the first answer that counts it (``reached`` says whether it did in time)."""
        clicked = self.click(query_id, item_id)
        return self.retrieve(query_id, n, wait_for_clicks=clicked.wait_for_clicks, **options)

    def item(self, item_id: str) -> ItemOut:
        """What is known of an item; raises as :meth:`retrieve`."""
        found = self._call("GET", f"/v1/items/{quote(item_id, safe='')}", self._timeout_s)
        return ItemOut.model_validate_json(found)

    def _call(self, method: str, path: str, timeout_s: float, **request: Any) -> bytes:
        reply = self._http.request(method, path, timeout=timeout_s, **request)
        if reply.is_success:
            return reply.content
        try:
            said = reply.json()
        except ValueError:
            said = {}
        after = reply.headers.get("Retry-After", "")
        raise RequestRefused(
            reply.status_code,
            said.get("code", "refused"),
            said.get("message", f"the service answered {reply.status_code}"),
            float(after) if after.isdigit() else None,
        )


def _given(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}
