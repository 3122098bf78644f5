"""Calls of endpoints over HTTP, with pooled connections, timeouts and clear errors.

This module is imported at the first call, since only calls need httpx.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator, Mapping
from typing import Any

try:
    import httpx
except ModuleNotFoundError as error:
    if error.name != "httpx":
        raise
    raise ModuleNotFoundError(
        "calling an endpoint needs httpx, which is not installed. Fix: pip install httpx. For calls from a "
        "handler: write Endpoint(dependencies=['httpx', …]) and build again",
        name="httpx",
    ) from None

from runpod_flash import addresses
from runpod_flash.errors import (
    EndpointAddressError,
    EndpointError,
    EndpointStatusError,
    EndpointTimeout,
    EndpointUnreachable,
)

_SHOWN = 500
"""How many characters of a response an error's text shows. Its `body` has all of them."""
_CONNECTIONS = httpx.Limits(max_connections=None, max_keepalive_connections=100, keepalive_expiry=4.0)
"""Idle connections are closed before common servers (5 s) close them."""


async def send(
    method: str,
    base: str,
    path: str,
    data: Any = None,
    *,
    timeout: float | None = 60.0,
    params: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Any:
    """The response's data: parsed JSON, text or bytes, by its type. `None` if the response is empty.

    `data` is sent as JSON. `timeout` limits the seconds to connect, and the seconds without data afterwards.
    `None` waits for ever. Redirects are not followed. Raises `EndpointError`, and `TypeError` or `ValueError`
    for data that JSON cannot represent.
    """
    if not path.startswith("/"):
        raise EndpointAddressError(f"path must start with '/', got: {path!r}. Fix: {'/' + path!r}")
    url = base + path
    what = f"{method} {url.partition('?')[0]}"
    shown = {"Accept": "application/json, */*;q=0.5", **(headers or {})}
    key = addresses.key_for(base)
    if key is not None and not any(name.lower() == "authorization" for name in shown):
        shown["Authorization"] = f"Bearer {key}"
    client = await _client()
    try:
        response = await client.request(method, url, json=data, params=params, headers=shown, timeout=timeout)
    except httpx.TimeoutException as error:
        raise _Timeout(f"No answer from endpoint within {timeout} s: {what}") from error
    except httpx.TransportError as error:
        raise _Unreachable(_no_connection(what, error)) from error
    except httpx.InvalidURL as error:
        raise EndpointAddressError(f"the URL of {what} is not valid: {error}") from None
    if not response.is_success:
        raise _Status(what, response)
    return _data(response)


# The exceptions that are raised. They are httpx's, too, since code for the vendor's package catches those.


class _Status(EndpointStatusError, httpx.HTTPStatusError):
    def __init__(self, what: str, response: httpx.Response) -> None:
        request_id = response.headers.get("x-request-id")
        try:
            body = _data(response)
        except EndpointError:
            body = response.text
        named = f" (request {request_id})" if request_id else ""
        said = _message(body)
        if response.has_redirect_location:
            said = f"the endpoint redirects to {response.headers['location']}, and redirects are not followed"
        message = f"HTTP error from endpoint: {response.status_code}, for {what}{named}"
        httpx.HTTPStatusError.__init__(
            self, f"{message}: {said}" if said else message, request=response.request, response=response
        )
        self.status, self.request_id, self.body = response.status_code, request_id, body


class _Unreachable(EndpointUnreachable, httpx.ConnectError):
    def __init__(self, message: str) -> None:
        httpx.ConnectError.__init__(self, message)
        self.status = self.request_id = self.body = None


class _Timeout(EndpointTimeout, httpx.TimeoutException):
    def __init__(self, message: str) -> None:
        httpx.TimeoutException.__init__(self, message)
        self.status = self.request_id = self.body = None


def _no_connection(what: str, error: httpx.TransportError) -> str:
    if any(isinstance(each, ConnectionRefusedError) for each in _causes(error)):
        return f"Connection refused: {what}. Nothing listens there. Fix: start the endpoint, or check its log"
    if isinstance(error, httpx.ConnectError):
        return f"Cannot connect: {what}: {error}. Fix: check the endpoint's address"
    return f"Connection lost: {what}: {error or type(error).__name__}. Fix: check the endpoint's log"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        if isinstance(error, BaseExceptionGroup):
            for each in error.exceptions:
                yield from _causes(each)
        error = error.__cause__ or error.__context__


# What came back.


def _data(response: httpx.Response) -> Any:
    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if not response.content:
        return None
    if kind == "application/json" or kind.endswith("+json"):
        try:
            return response.json()
        except ValueError as error:
            raise EndpointError(
                f"the endpoint's response is labelled as JSON and is not valid JSON: {error}",
                status=response.status_code,
                request_id=response.headers.get("x-request-id"),
                body=response.content,
            ) from None
    return response.text if kind.startswith("text/") else response.content


def _message(body: Any) -> str:
    """The error message in a response: FastAPI's `detail`, or what other servers call it."""
    if isinstance(body, dict):
        body = next((body[key] for key in ("detail", "error", "message") if body.get(key)), body)
    if isinstance(body, list):
        body = "; ".join(_invalid(each) for each in body)
    text = body if isinstance(body, str) else "" if body is None else repr(body)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _invalid(problem: Any) -> str:
    """One entry of a 422: where the problem is, and what it is."""
    if isinstance(problem, dict) and "msg" in problem:
        return f"{'.'.join(str(part) for part in problem.get('loc', ()))}: {problem['msg']}"
    return str(problem)


# The connections.

_clients: dict[asyncio.AbstractEventLoop, tuple[httpx.AsyncClient, AsyncGenerator[None]]] = {}


async def _client() -> httpx.AsyncClient:
    """This event loop's client. It reuses its connections, and closes them when the loop ends."""
    loop = asyncio.get_running_loop()
    if loop not in _clients:
        for each in [each for each in _clients if each.is_closed()]:
            del _clients[each]  # closed without shutting its generators down
        client = httpx.AsyncClient(follow_redirects=False, limits=_CONNECTIONS)
        closing = _close_with_loop(loop, client)
        _clients[loop] = client, closing
        await anext(closing)
    return _clients[loop][0]


async def _close_with_loop(
    loop: asyncio.AbstractEventLoop, client: httpx.AsyncClient
) -> AsyncGenerator[None]:
    """Close the client when the loop shuts its generators down, as `asyncio.run` does at its end."""
    try:
        yield
    finally:
        _clients.pop(loop, None)
        await client.aclose()
