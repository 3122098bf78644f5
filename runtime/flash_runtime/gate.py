"""The gate: what happens on the I/O loop before the application is asked.

It answers health, gives each request its id, checks the API key, reads the body up to the limit, and writes
the access line. It never waits for user code to do any of these.
"""

from __future__ import annotations

import hmac
import json
import logging
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass

from flash_runtime import health, logs
from flash_runtime.bridge import Bridge, Message, Receive, Scope, Send
from flash_runtime.health import Verdict

access = logging.getLogger("flash_runtime.access")

_REQUEST_ID_LIMIT = 128


@dataclass(frozen=True, slots=True)
class GateSettings:
    """What the gate needs of the settings."""

    health_path: str
    max_body_bytes: int
    api_key: str | None
    access_log: bool


class _Refusal(Exception):
    """The gate answers itself: a status, a detail for the client, and headers."""

    def __init__(self, status: int, detail: str, *headers: tuple[bytes, bytes]) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = headers


class _ClientGone(Exception):
    """The client left before its request was whole: nobody is there to answer."""


class Gate:
    """An ASGI application for the I/O loop, in front of the `bridge`."""

    def __init__(
        self,
        settings: GateSettings,
        bridge: Bridge,
        verdict: Callable[[], Verdict],
        in_flight_changed: Callable[[int], None],
    ) -> None:
        self._settings = settings
        self._bridge = bridge
        self._verdict = verdict
        self._in_flight_changed = in_flight_changed
        self._in_flight = 0

    @property
    def in_flight(self) -> int:
        """Requests accepted and not yet answered; health is not among them."""
        return self._in_flight

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == self._settings.health_path:
            await _answer_health(self._verdict(), scope["method"], send)
            return
        call = _Call(scope, send)
        self._count(+1)
        try:
            await self._pass(call, scope, receive)
        finally:
            self._count(-1)
            if self._settings.access_log:
                call.log()

    async def _pass(self, call: _Call, scope: Scope, receive: Receive) -> None:
        try:
            self._authorise(scope)
            body = await self._read(scope, receive)
        except _Refusal as refusal:
            await call.refuse(refusal)
            return
        except _ClientGone:
            return
        whole = await self._bridge.handle(scope, body, receive, call.send)
        if not whole and not call.status:
            stopping = self._verdict().word == "draining"
            await call.refuse(
                _Refusal(503, "The server is stopping.", (b"connection", b"close"))
                if stopping
                else _Refusal(500, "Internal Server Error")
            )
        call.broken_off = not whole
        # A response that broke off midway stays unfinished: the server then closes the connection, which is
        # the only way left to tell the client.

    def _count(self, change: int) -> None:
        self._in_flight += change
        self._in_flight_changed(self._in_flight)

    def _authorise(self, scope: Scope) -> None:
        key = self._settings.api_key
        if key is None:
            return
        scheme, _, given = (_header(scope, b"authorization") or b"").partition(b" ")
        if scheme.lower() != b"bearer" or not hmac.compare_digest(given.strip(), key.encode()):
            raise _Refusal(
                401,
                "Send the API key as `Authorization: Bearer KEY`.",
                (b"www-authenticate", b"Bearer"),
                (b"connection", b"close"),  # the body is not read, so the connection cannot be used again
            )

    async def _read(self, scope: Scope, receive: Receive) -> bytes:
        limit = self._settings.max_body_bytes
        too_large = _Refusal(
            413, f"The body is larger than this server's limit of {limit} bytes.", (b"connection", b"close")
        )
        declared = _header(scope, b"content-length")
        if declared is not None and declared.isdigit() and int(declared) > limit:
            raise too_large
        chunks: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise _ClientGone
            chunk = message.get("body", b"")
            size += len(chunk)
            if size > limit:
                raise too_large
            chunks.append(chunk)
            if not message.get("more_body"):
                return b"".join(chunks)


class _Call:
    """One request's id, response and access line."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self._scope = scope
        self._send = send
        self._started = time.perf_counter()
        self.status = 0
        self.broken_off = False
        self.request_id = _request_id(scope)
        scope.setdefault("state", {})["request_id"] = self.request_id

    async def send(self, message: Message) -> None:
        """Pass a message of the response on, with the request's id among its headers."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = [*message.get("headers", ()), (b"x-request-id", self.request_id.encode())]
            message = {**message, "headers": headers}
        await self._send(message)

    async def refuse(self, refusal: _Refusal) -> None:
        content = json.dumps({"detail": refusal.detail, "request_id": self.request_id}).encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(content)).encode()),
            *refusal.headers,
        ]
        await self.send({"type": "http.response.start", "status": refusal.status, "headers": headers})
        await self._send({"type": "http.response.body", "body": content})

    def log(self) -> None:
        """Write the access line. Status 499 stands for a client that left before its answer."""
        if not access.isEnabledFor(logging.INFO):
            return
        scope, status = self._scope, self.status or 499
        milliseconds = round((time.perf_counter() - self._started) * 1000, 2)
        route = getattr(scope.get("route"), "path", None)
        logs.request_id.set(self.request_id)
        access.info(
            "%s %s %d",
            scope["method"],
            scope["raw_path"].decode(
                "latin-1"
            ),  # still percent-encoded: no client writes a log line of its own
            status,
            extra={"method": scope["method"], "route": route, "status": status, "ms": milliseconds}
            | ({"broken_off": True} if self.broken_off else {}),
        )


async def _answer_health(verdict: Verdict, method: str, send: Send) -> None:
    if method not in ("GET", "HEAD"):
        verdict = Verdict(405, "method not allowed")
    content = health.body(verdict)
    headers = [(b"cache-control", b"no-store")]
    if content:
        headers += [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]
    if verdict.status == 405:
        headers.append((b"allow", b"GET, HEAD"))
    await send({"type": "http.response.start", "status": verdict.status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if method == "HEAD" else content})


def _header(scope: Scope, name: bytes) -> bytes | None:
    return next((value for key, value in scope["headers"] if key == name), None)


def _request_id(scope: Scope) -> str:
    """The client's X-Request-ID where it is one plain printable word, else a new one."""
    given = (_header(scope, b"x-request-id") or b"").decode("latin-1")
    if (
        given
        and len(given) <= _REQUEST_ID_LIMIT
        and given.isascii()
        and given.isprintable()
        and " " not in given
    ):
        return given
    return uuid.uuid4().hex
